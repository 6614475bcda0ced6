from tests.verify import compare, hashes


def test_difference_is_named_and_the_time_does_not_count():
    lock = {
        "stages": {
            "download": {"outs": [{"path": "data/raw/cifar-100-python.tar.gz", "md5": "1"}]},
            "train": {
                "outs": [
                    {"path": "models/model.safetensors", "md5": "2"},
                    {"path": "reports/timing.json", "md5": "3"},
                ]
            },
        }
    }
    expected = hashes(lock)
    assert expected == {"models/model.safetensors": "2", "reports/timing.json": "3"}
    assert compare(expected, expected | {"reports/timing.json": "4"}) == []
    (line,) = compare(expected, expected | {"models/model.safetensors": "5"})
    assert line == "models/model.safetensors: expected md5 2, found 5"
    assert len(compare(expected, {})) == 1
