# Sourced by the scripts that install nothing. It sets `project`, this checkout's folder, and `python`,
# the interpreter that PYTHON names, by default .venv's if there is one, else python3; and it defines
#   need PACKAGE...   ends the script with one line if the interpreter lacks any of them, or is old
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-}
if [[ -z $python ]]; then
  python=python3
  if [[ -x $project/.venv/bin/python ]]; then python=$project/.venv/bin/python; fi
fi
if ! command -v "$python" >/dev/null; then
  echo "error: $python: not found; name an interpreter with PYTHON=..." >&2
  exit 2
fi

need() {
  local missing
  missing=$("$python" - "$@" <<'PYTHON'
import sys
from importlib.util import find_spec

missing = [name for name in sys.argv[1:] if find_spec(name) is None]
if sys.version_info < (3, 11):
    missing.append("python>=3.11")
print(" ".join(missing))
PYTHON
  )
  if [[ -n $missing ]]; then
    echo "error: $python lacks: $missing; install them and run this again" >&2
    exit 2
  fi
}
