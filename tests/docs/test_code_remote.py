"""The Python of the page on remote files runs, against an S3 server on this machine."""

from __future__ import annotations

import pytest

from tests.docs import world
from tests.docs.test_code import run_page
from tests.support.requirements import require
from tests.support.servers import s3_server

require("obstore")
require("moto")

PAGE = "docs/how-to/remote.md"


@pytest.mark.slow
def test_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    world.write(PAGE, tmp_path)
    with s3_server() as s3:
        s3.client.create_bucket(Bucket="bucket")
        s3.put_tree("bucket", tmp_path / "studies", "studies/")
        for one in s3.client.list_objects_v2(Bucket="bucket")["Contents"]:  # public data
            s3.client.put_object_acl(Bucket="bucket", Key=one["Key"], ACL="public-read")
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.options["endpoint"])
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        names = run_page(PAGE, tmp_path, {})
    assert len(names["frames"]) == 36
    assert names["images"].shape[1:] == (1, 32, 32)
