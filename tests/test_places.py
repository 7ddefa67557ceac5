from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from zpdbench import places, study
from zpdbench.errors import UserError

ODD = [
    "it's",
    'a "b"',
    "$(touch x)",
    "$HOME/x",
    "`id`",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x00b",
    "a\u2028b",
    "a\ud83db",
    "{a}",
    "a}b",
    "a\\b",
    "-rf",
    "results/-rf",
    "--out=x",
    " a",
    "a ",
    "a/ b",
    "",
    " ",
    "x" * 256,
    "~nobody-of-this-name/x",
]


@pytest.mark.parametrize("path", ODD)
def test_what_another_program_would_misread_is_refused(path: str) -> None:
    for check in (places.anywhere, places.folder_of_results, places.address_or_file):
        with pytest.raises(ValueError):
            check(path)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a b/c d", "a b/c d"),
        ("results/", "results"),
        ("./results//x/./", "results/x"),
        ("/data//x/", "/data/x"),
        ("../x", "../x"),
        ("a/../b", "a/../b"),
        ("a;b & c|d <e> (f) #g!", "a;b & c|d <e> (f) #g!"),
        ("결과/실험 1", "결과/실험 1"),
        ("a-b/c--d", "a-b/c--d"),
    ],
)
def test_the_others_have_one_form(path: str, form: str) -> None:
    assert places.anywhere(path) == places.folder_of_results(path) == form
    assert places.anywhere(form) == form


def test_home_is_spelt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/some one")
    assert places.anywhere("~/x/") == "/home/some one/x"
    assert places.below("~/x") == "~/x"


def test_results_have_a_folder_of_their_own() -> None:
    for path in (".", "./", "/", "//"):
        with pytest.raises(ValueError, match="folder of its own"):
            places.folder_of_results(path)


def test_below_stays_below() -> None:
    assert places.below("a//b/*.json") == "a/b/*.json"
    for path in ("/a", "../a", "a/../../b"):
        with pytest.raises(ValueError, match="below"):
            places.below(path)
    assert places.below("a..b") == "a..b"


def test_an_address_stays() -> None:
    address = "docker://host/a@sha256:" + "0" * 64
    assert places.address_or_file(address) == address
    assert places.address_or_file("a//b/") == "a/b"
    with pytest.raises(ValueError):
        places.address_or_file("docker://host/$(id)@sha256:0")


def test_images_are_named_in_letters_that_no_shell_reads() -> None:
    address = "docker://host:5000/a/b@sha256:" + "0" * 64
    assert places.of_image(address) == address
    assert places.of_image("./.cache//images/") == ".cache/images"
    assert places.of_image("가/x") == "가/x"
    for image in ("a b/x.sif", "a;id", "a&b", "a|b", "(a)", "docker://h/a;id@sha256:0", "a#b"):
        with pytest.raises(ValueError, match="may hold no"):
            places.of_image(image)


def test_what_verify_is_asked_for() -> None:
    asked = {"bundle": "./a b.zip", "level": 2, "data": "x/"}
    assert places.of_request(asked) == {"bundle": "a b.zip", "level": 2, "data": "x"}
    with pytest.raises(UserError, match=r"--config: bundle: .*'\{x\}'"):
        places.of_request({"bundle": "{x}"})


def _set(config: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    *parents, last = keys
    for key in parents:
        config = config.setdefault(key, {})
    config[last] = value


LOCAL = {"models": {"mini-qwen": {"source": "local", "path": "x"}}}
OWN = {"corpus": {"sources": {"own": {"format": "alpaca", "path": "x"}}}}
KEYS: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("results",), {}),
    (("data_dir",), {}),
    (("images", "folder"), {}),
    (("images", "score"), {}),
    (("hub", "folder"), {}),
    (("hub", "cache"), {}),
    (("models", "mini-qwen", "path"), LOCAL),
    (("corpus", "sources", "own", "path"), OWN),
    (("benchmarks", "gsm8k", "definition"), {}),
    (("generations", "base_url"), {"generations": {"engine": "openai"}}),
]


@pytest.mark.parametrize(("keys", "with_"), KEYS, ids=lambda k: ".".join(k) if k else "")
@pytest.mark.parametrize("value", ["$(touch x)", "it's", "a\nb", "-x", "{y}"])
def test_every_path_of_a_configuration_is_checked(
    keys: tuple[str, ...], with_: dict[str, Any], value: str, root: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load((root / "config/micro.yaml").read_text("utf-8"))
    for section, change in deepcopy(with_).items():
        for name, inner in change.items():
            config[section][name] = inner
    _set(config, keys, value)
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    with pytest.raises(UserError) as refused:
        study.load(path)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.where.startswith(f"{path}:")
    number = int(refused.value.where.rpartition(":")[2])
    assert keys[-1] in path.read_text("utf-8").splitlines()[number - 1]
    assert ".".join(keys[-2:]) in line


def test_a_file_of_the_hub_stays_in_its_folder(root: Path) -> None:
    config = yaml.safe_load((root / "config/micro.yaml").read_text("utf-8"))
    facts = {"sha256": "0" * 64, "size": 1}
    for name in ("../x", "/etc/x", "a/../../x"):
        config["models"]["mini-qwen"] = {
            "source": "hub",
            "repo": "a/b",
            "revision": "0" * 40,
            "files": {name: facts},
        }
        with pytest.raises(UserError, match="below its folder"):
            study.parse(config)
