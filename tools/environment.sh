#!/bin/sh
# Makes an environment unless it is whole: sh tools/environment.sh FOLDER PYTHON [wanted]
#
# PYTHON makes a new one. With `wanted` an environment of another version of Python is not whole.
# Nor is one that was moved, since its programs begin with the path of its Python; one whose Python
# is gone or is of another version now; or one in which a package has no list of its files, as after
# an interrupted pip.
set -u

folder=$1 python=$2 wanted=${3-}

refuse() {
  echo "error: setup: $1" >&2
  exit 1
}

is_whole() {
  "$folder/bin/python" - "$1" << 'PYTHON' 2> /dev/null
import sys, sysconfig
from pathlib import Path

here = Path(sys.prefix).resolve()
activate = (here / "bin/activate").read_text(encoding="utf-8")
marks = str.maketrans("", "", "\"'\\")  # with which a shell quotes the path
packages = list(Path(sysconfig.get_path("purelib")).glob("*.dist-info"))
sys.exit(
    not any(package.name.startswith("pip-") for package in packages)
    or not all((package / "RECORD").is_file() for package in packages)
    or str(here).translate(marks) not in activate.translate(marks)
    or sys.argv[1] not in ("", "%d.%d" % sys.version_info[:2])
)
PYTHON
}

# The one of the caller, and not that of an environment which may be about to go.
of_caller() {
  PATH=${PATH_OF_CALLER-$PATH} "$python" "$@"
}

version=
if [ -n "$wanted" ]; then
  version=$(of_caller -c 'import sys; print("%d.%d" % sys.version_info[:2])') ||
    refuse "$python cannot be started; name another Python: make PYTHON=python3.12"
fi
is_whole "$version" && exit 0

case $(pwd) in *:*) refuse "an environment cannot lie in a folder with a colon in its path; rename it" ;; esac
[ -w . ] || refuse "this folder cannot be written; clone the repository to one that can"
base=$(of_caller -c 'import sys
print(sys._base_executable)
v = sys.version_info[:2]
(3, 10) <= v <= (3, 13) or sys.exit("error: setup: Python 3.10 to 3.13 is needed, this is %d.%d; "
    "name another: make PYTHON=python3.12" % v)') || {
  [ -n "$base" ] || refuse "$python cannot be started; name another Python: make PYTHON=python3.12"
  exit 1
}
if [ -e "$folder" ] || [ -L "$folder" ]; then
  echo "setup: $folder is half made, was moved, or is of another Python: it is created again"
  [ ! -e "$folder/ready-gpu" ] || echo "setup: \`make setup PADDLE=gpu\` installs the GPU build again"
  rm -rf "$folder" || refuse "$folder cannot be deleted"
fi
echo "setup: $folder, of $base"
"$base" -m venv "$folder" || refuse "$base cannot make an environment; its reason stands above"
is_whole "" || refuse "$folder is not whole though it was made just now; please report it"
