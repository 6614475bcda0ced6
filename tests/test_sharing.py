"""A run is pushed by one person, and pulled by another who has to train nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RESULTS, Workspace

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The arguments of `dvc remote add` for a folder, or for a bucket of a local S3 server."""
    if request.param == "folder":
        yield [str(tmp_path / "store")]
        return
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret"
    ).create_bucket(Bucket="store")
    yield ["s3://store/cifar100", endpoint]
    server.stop()


@pytest.mark.parametrize(
    "address", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)
def test_second_clone_gets_everything_without_training(workspace, tmp_path, address):
    url, *endpoint = address
    workspace.run("dvc", "remote", "add", "--default", "store", url)
    if endpoint:
        workspace.run("dvc", "remote", "modify", "store", "endpointurl", *endpoint)
    workspace.commit("Name a remote")
    workspace.run("dvc", "push", **CREDENTIALS)

    second = Workspace(tmp_path / "second")
    workspace.run("git", "clone", "--quiet", ".", str(second.path))
    assert not (second.path / "models").exists()
    second.run("dvc", "pull", **CREDENTIALS)
    assert "Running stage" not in second.run("dvc", "repro")
    assert {n: second.read(n) for n in RESULTS} == {n: workspace.read(n) for n in RESULTS}
