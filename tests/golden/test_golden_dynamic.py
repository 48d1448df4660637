"""A stored dynamic artifact and an image coded with it against today's code."""

import json

from licquant.codec.files.artifact import Artifact
from tests.golden import golden_dynamic as golden
from tests.golden.test_golden_codec import stored


def test_the_stored_artifact_is_read_and_written_alike():
    data = stored("dynamic.licq")
    artifact = Artifact.from_bytes(data)
    assert sorted(artifact.dynamic) == ["g_a", "g_s"]
    assert artifact.to_bytes() == data


def test_the_image_is_coded_into_the_stored_bytes():
    assert golden.open_codec(stored("dynamic.licq")).encode(golden.image()) == stored("dynamic.lic")


def test_decoding_and_choosing_give_the_stored_results():
    codec = golden.open_codec(stored("dynamic.licq"))
    assert golden.results(codec, stored("dynamic.lic")) == json.loads(stored("dynamic.json"))
