"""The official archive: reading it safely, and a synthetic one."""
