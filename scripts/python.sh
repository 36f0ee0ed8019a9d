# The Python environment of the tests. Other scripts source this file.

# prepare_python: makes build/venv with what tests/requirements.txt names, if it
# is not there yet; sets `python`.
prepare_python() {
  local venv=build/venv
  if ! cmp -s tests/requirements.txt "$venv/requirements.txt"; then
    echo "Installing the tests' Python packages into $venv ..."
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      --requirement tests/requirements.txt
    cp tests/requirements.txt "$venv/requirements.txt"
  fi
  python=$PWD/$venv/bin/python
}
