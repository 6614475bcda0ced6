"""What people type that is no stage of the pipeline, each as `python -m tools.NAME`."""
