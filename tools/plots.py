"""Writes the page template with which `dvc plots` needs no network: `make plots` uses it.

DVC's own page loads the Vega scripts, which draw its plots, from the internet. Here they come from
the package vl-convert.
"""

import argparse
from pathlib import Path

import vl_convert

from cifar100.running.guard import run_command
from cifar100.running.outputs import write_text

VEGA_LITE = "v5.21"  # DVC writes its plots for version 5

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Plots</title>
{refresh_tag}
<style>
body { font-family: sans-serif; margin: 1rem; background: white }
table { border-spacing: 15px }
img { max-width: 100% }
</style>
<script>SCRIPTS</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    """Write the template to the path that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.plots", description=__doc__)
    parser.add_argument("template", type=Path, help="the page template to write")
    options = parser.parse_args()
    scripts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    write_text(options.template, PAGE.replace("SCRIPTS", scripts))


if __name__ == "__main__":
    run_command("plots", main)
