# shellcheck shell=bash
# Sourced by the scripts beside it: the repository's root, one-line errors, logged steps.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export LC_ALL=C.UTF-8
die() {
  echo "error: $*" >&2
  exit 1
}
mkdir -p build 2>/dev/null || die "cannot write to $root; make the checkout writable (ls -ld $root) and run again."
log=$root/build/bootstrap.log

say() { echo "==> $*"; }

# Pinned wheels and parallel builds share .venv and build/: a second call waits for the first.
take_lock() {
  command -v flock >/dev/null || return 0
  exec 9>"$root/build/.lock"
  flock -n 9 || {
    say "Another set-up is running in this checkout; waiting for it"
    flock 9
  }
}

# diagnose FILE: one line on what went wrong in a failed command's output, and what to do about it.
diagnose() {
  local out=$1
  if grep -qiE 'no space left|not enough free (disk )?space|enough free space in' "$out"; then
    echo "the disk is full. Free some space (df -h . /tmp /var) and run again; finished parts are kept."
  elif grep -qiE 'could not get lock|unable to acquire the dpkg' "$out"; then
    echo "another package manager is running. Wait until it ends and run again."
  elif grep -qiE "dpkg was interrupted|unmet dependencies|held broken" "$out"; then
    echo "apt's own state needs repair: run 'dpkg --configure -a' and 'apt-get -f install' as root, then again."
  elif grep -qiE 'failed to fetch|could not resolve|temporary failure|connection (error|broken|refused|reset|timed out)|max retries|read timed out|network is unreachable|proxyerror|sslerror|certificate verify|could not connect|incompleteread|from versions: none' "$out"; then
    echo "a download failed. Check the network (or the proxy: https_proxy; for pip: PIP_INDEX_URL) and run again; finished parts are kept."
  elif grep -qiE 'unable to locate package|has no installation candidate' "$out"; then
    echo "apt does not know the package $(sed -nE "s/.*(locate package |Package ')([^' ]+).*/\2/p" "$out" | head -n 1). Debian 12 and Ubuntu 24.04 (with universe) have it; enable that source and run again."
  elif grep -qiE 'no matching distribution|requires a different python' "$out"; then
    echo "pip found no fitting wheel for $(uname -m) and this Python; refract needs x86-64 and Python 3.10 to 3.13 (set PYTHON=...)."
  elif grep -qiE 'killed signal|out of memory|cannot allocate memory' "$out"; then
    echo "memory ran out. Run again with REFRACT_JOBS=1."
  else
    grep -iE 'error|fatal|^E:' "$out" | tail -n 1 | cut -c 1-200
  fi
}

# logged WHAT COMMAND...: runs the command into the log; where it fails, one line says why and the log has the rest.
logged() {
  local what=$1 started=$SECONDS out
  shift
  say "$what"
  out=$(mktemp "$root/build/step.XXXXXX") || die "cannot write to $root/build; is the disk full (df -h .)?"
  if ! "$@" >"$out" 2>&1 </dev/null; then
    { echo "### $what: $*"; cat "$out"; } >>"$log" 2>/dev/null || true
    local why
    why=$(diagnose "$out")
    rm -f "$out"
    die "$what: ${why:-failed.} Log: ${log#"$root"/}"
  fi
  { echo "### $what: $*"; cat "$out"; } >>"$log" 2>/dev/null || true
  rm -f "$out"
  [ $((SECONDS - started)) -lt 3 ] || echo "    $((SECONDS - started)) s"
}

has_gpu() { [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; }

# One compiler of torch's headers takes up to 1.5 GB.
jobs() {
  local cpus memory
  cpus=$(nproc)
  memory=$(awk '/MemAvailable/ {print int($2 / 1500000)}' /proc/meminfo 2>/dev/null || echo "$cpus")
  [ "${memory:-0}" -ge 1 ] || memory=1
  echo "${REFRACT_JOBS:-$((cpus < memory ? cpus : memory))}"
}

# The compiler: CXX if set, else the first g++ of version 12 or newer. torch's wheel uses GCC's OpenMP runtime, so ours must.
compiler() {
  local candidate major
  for candidate in ${CXX:-g++ g++-14 g++-13 g++-12}; do
    command -v "$candidate" >/dev/null || continue
    major=$("$candidate" -dumpversion 2>/dev/null | cut -d . -f 1)
    if [ "${major:-0}" -ge 12 ] && "$candidate" --version | grep -q 'Free Software Foundation'; then
      echo "$candidate"
      return
    fi
  done
  candidate=$("${CXX:-g++}" --version 2>/dev/null | head -n 1 || true)
  die "no g++ 12 or newer was found (${CXX:-g++}: ${candidate:-not installed}). Install g++-12 and run again with CXX=g++-12."
}
