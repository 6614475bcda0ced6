import pytest

from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from cifar100.running.outputs import replacing, write_text


def test_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "first\n")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("second")
            assert path.read_text() == "first\n"
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    assert path.read_bytes() == b"first\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (PipelineError("a.txt: too long"), "error: train: a.txt: too long\n", 1),
        (PermissionError(13, "Permission denied", "b"), "error: train: b: Permission denied\n", 1),
        (KeyboardInterrupt(), "error: train: interrupted\n", 130),
    ],
)
def test_failure_is_one_line_and_an_exit_code(capsys, error, line, code):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_command("train", main)
    assert caught.value.code == code
    assert capsys.readouterr().err == line


def test_a_mistake_of_the_program_keeps_its_traceback():
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command("train", main)
