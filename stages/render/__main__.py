"""`python -m stages.render`: the stage, under a guard that needs no other package."""

from cifar100.running.guard import run_stage

if __name__ == "__main__":
    run_stage("render", "stages.render.main")
