# Describes everything in the folder $root. Set before: root, limit, sums, batch; `quick` and `brief`; expected, the digest
# of what `brief` says while all of it is known, or nothing; since, the time from which on files may be unknown, or nothing for
# every file. @FIND@ is what is left out.
LC_ALL=C
export LC_ALL sums
umask 077
# What somebody writes to a file in its memory changes the file's status when it is written to the disk, or after that.
clean() {
  sync -f . 2>/dev/null
}
gzip=no
command -v gzip >/dev/null 2>&1 && gzip=yes
packer=no
[ $gzip = no ] || packer=gzip
command -v zstd >/dev/null 2>&1 && packer=zstd
if [ -n "$expected" ] && cd -- "$root" 2>/dev/null && clean && [ "$(brief | sha256sum)" = "$expected  -" ]; then
  echo "pcoder-sync 1 same $packer"
  exit 0
fi
missing=
for tool in find xargs stat sha256sum tar sed tr wc rm mv chmod rmdir mkdir readlink cat; do
  command -v $tool >/dev/null 2>&1 || missing="$missing $tool"
done
case " $missing " in *' stat '*) ;; *) stat -c '%f %s %Y' / >/dev/null 2>&1 || missing="$missing stat" ;; esac
case " $missing " in *' find '*) ;; *) find / -prune -print0 >/dev/null 2>&1 || missing="$missing find" ;; esac
case " $missing " in *' xargs '*) ;; *)
  [ "$(printf 'a b\0' | xargs -0 -n 1 sh -c 'printf %s "$1"' sh 2>/dev/null)" = 'a b' ] || missing="$missing xargs" ;;
esac
if [ -n "$missing" ]; then
  echo "pcoder-sync 1 missing$missing"
  exit 0
fi
if [ ! -e "$root" ] && [ ! -L "$root" ]; then
  echo "pcoder-sync 1 absent $packer"
  exit 0
fi
cd -- "$root" || exit 1
list() {
  find . \( @FIND@ \) -prune -print0 -o -print0
}
changed=
files() {
  if [ -z "$changed" ]; then
    list
  else
    # The folder itself, so that there is something to describe.
    find . \( @FIND@ \) -prune -o \( -path . -o -type f -newerct "@$since" \) -print0
  fi
}
describe() {
  found=$(($(list 2>/dev/null | tr -dc '\000' | wc -c)))
  if [ "$found" -gt "$limit" ]; then
    echo "pcoder-sync 1 many $found"
    return
  fi
  # The time before the times of the files.
  now=$(date +%s.%N 2>/dev/null)
  case $(stat -f -c %T . 2>/dev/null) in
    ext* | xfs | btrfs | overlayfs) clean || now= ;;
    # Others have no disk, or somebody else's.
    *) now= ;;
  esac
  case $now$(find --version 2>/dev/null) in
    [0-9]*GNU*)
      echo "pcoder-sync 1 listed $packer $now"
      quick
      [ -z "$since" ] || changed=yes
      ;;
    *) echo "pcoder-sync 1 folder $packer" ;;
  esac
  {
    status=$({ { files 2>/dev/null; echo $? >&3; } | xargs -0 -n 200 sh -c "$batch" sh >&4; echo $? >&3; } 3>&1)
    echo E $status
  } 4>&1
}
if [ $gzip = yes ]; then describe | gzip -c; else describe; fi
