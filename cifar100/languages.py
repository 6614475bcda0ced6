"""The names of the classes of CIFAR-100 in other languages than that of the data set."""

from typing import Any

from cifar100 import chinese
from cifar100.running.errors import PipelineError

# By the names in the data set, which are English.
NAMES: dict[str, dict[str, str]] = {"en": {}, "zh": chinese.FINE | chinese.COARSE}


def check_language(language: str, encoding: str) -> None:
    """Raise `PipelineError` if there are no names in `language`, or they cannot be printed.

    encoding: of the text stream to which they would be written.
    """
    if language not in NAMES:
        raise PipelineError(
            f"--language {language}: there are no names of the classes in it; give one of "
            f"{', '.join(NAMES)}"
        )
    try:
        "".join(NAMES[language].values()).encode(encoding)
    except UnicodeEncodeError:
        raise PipelineError(
            f"--language {language}: the output is in {encoding}, which has not all letters of "
            "these names; set PYTHONIOENCODING=utf-8, or give --json"
        ) from None


def translated(predictions: list[dict[str, Any]], language: str) -> list[dict[str, Any]]:
    """The `top_classes` of an image with the names of class and superclass in `language`.

    Raises `PipelineError` for a class that is not one of CIFAR-100, unless the language is `en`.
    """
    if language == "en":
        return predictions
    names = NAMES[language]
    try:
        return [
            row | {"class": names[row["class"]], "superclass": names[row["superclass"]]}
            for row in predictions
        ]
    except KeyError as error:
        raise PipelineError(
            f"--language {language}: has no name for {error.args[0]}, which is no class of "
            "CIFAR-100; leave --language out"
        ) from None
