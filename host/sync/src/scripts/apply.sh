# Takes an archive from standard input and puts what is in it in its place. Set before: root; packer, which unpacks the
# archive, or nothing; parts, the lengths of all of its parts but the last; sums; old and links, the digests of what is
# expected to be replaced, or nothing; listed, when `quick` is to say what is there in the end. In the archive, `t` holds
# what comes, and `c` what is to be done.
# Everything up to the first change can be repeated; from there on each step leaves files that are whole, and a later
# push finds what is missing. Exit code 75: something changed since it was described, and nothing was done.
LC_ALL=C
EXTRACT_UNSAFE_SYMLINKS=1 # busybox makes no links that lead out without it
export LC_ALL EXTRACT_UNSAFE_SYMLINKS
umask 022
# Where software emulates the processor, each process takes as long as hundreds of files: none is started for nothing.
s=.pcoder-sync
# Only if it is its own: a push whose connection was lost may end after the next one has begun.
gone() {
  wait # for what still unpacks
  [ ! -e $s/by-$$ ] || rm -rf $s
}
mkdir -p -- "$root" && cd -- "$root" || exit 1
# In the folder itself, where it is on the same file system, and writable.
if [ -e $s ] || [ -L $s ]; then
  for by in $s/by-*; do
    for second in 1 2 3 4 5 6 7 8 9 10; do
      [ "$by" != $s/by-$$ ] && [ -e "$by" ] && kill -0 "${by##*-}" 2>/dev/null || break
      sleep 1
    done
  done
  rm -rf $s || exit 1
fi
trap gone 0
trap 'exit 1' 1 2 13 15
mkdir -m 700 $s || exit 1
true >$s/by-$$ || { rmdir $s; exit 1; }
# GNU tar reads in pieces of 10 KiB unless it is told; a pipe holds 64.
TAR_OPTIONS='--blocking-factor=128'
export TAR_OPTIONS
unpack() {
  if [ -n "$packer" ]; then
    { $packer -dc || : >$s/torn; } | tar -xpof - -C $s
  else
    tar -xpof - -C $s
  fi
}
# Two parts at once: of this length, which waits on the disk until all of it is here, and of that or the rest.
both() {
  head -c "$1" >$s/part || return 1
  unpack <$s/part &
  if [ -n "$2" ]; then
    { head -c "$2" || : >$s/torn; } | unpack
  else
    unpack
  fi
  second=$?
  wait $! && : >$s/part && return $second
}
# A gigabyte, before it matters that a part waits there.
roomy() {
  df -Pk . 2>/dev/null | {
    read -r _
    read -r _ _ _ free _ && [ "$free" -gt 1048576 ] 2>/dev/null
  }
}
# Only GNU's head reads no more than it writes.
if [ -n "$parts" ] && [ "$(nproc 2>/dev/null)" -gt 1 ] 2>/dev/null && roomy; then
  case $(head --version 2>/dev/null) in *GNU*) ;; *) parts= ;; esac
else
  parts=
fi
set -- $parts
while [ $# -gt 1 ]; do
  both "$1" "$2" || exit 1
  shift 2
done
if [ $# = 1 ]; then
  both "$1" ''
else
  unpack
fi && [ ! -e $s/torn ] && [ -e $s/c/end ] && [ -e $s/by-$$ ] || exit 1

each() {
  [ ! -s "$s/c/$1" ] || xargs -0 -n 400 sh -c "$2" sh <"$s/c/$1"
}
[ -z "$old" ] || [ "$(each old "$sums" | sha256sum)" = "$old  -" ] || exit 75
targets='for f do [ ! -L "$f" ] || readlink -n "$f"; printf "\0"; done'
[ -z "$links" ] || [ "$(each links "$targets" | sha256sum)" = "$links  -" ] || exit 75
each none 'for f do if [ -e "$f" ] || [ -L "$f" ]; then exit 1; fi; done' || exit 75

present='for f do if [ -e "$f" ] || [ -L "$f" ]; then printf "%s\0" "$f"; fi; done'
each drop 'rm -rf "$@"'
each open 'chmod u+rwx "$@"'
each early-files 'rm -f "$@"'
each early-folders 'rmdir "$@"'
for c in $s/c/move.*; do
  [ -e "$c" ] || continue
  xargs -0 sh -c 'd=$1; shift; if [ -d "$d" ] && [ ! -L "$d" ]; then mv -f "$@" "$d/"; fi' sh <"$c"
done
each late-files 'rm -f "$@"'
each late-folders 'rmdir "$@"'
for c in $s/c/mode.*; do
  [ -e "$c" ] || continue
  m=${c##*.}
  export m
  xargs -0 -n 400 sh -c 'chmod "$m" "$@" || for f do chmod "$m" "$f" || printf "%s\0" "$f"; done' sh <"$c" >>$s/unset
done

for list in early-files early-folders late-files late-folders; do each $list "$present"; done
printf 'D\0'
[ ! -e $s/unset ] || cat $s/unset
printf 'M\0'
# What was moved is no longer here.
(cd $s && find t -print0) || exit 1
printf 'E\0'
if [ -n "$listed" ]; then
  now=$(date +%s.%N 2>/dev/null)
  case $(stat -f -c %T . 2>/dev/null) in ext* | xfs | btrfs | overlayfs) ;; *) now= ;; esac
  case $now$(find --version 2>/dev/null) in
    [0-9]*GNU*)
      rm -rf $s
      printf 'L%s\0' "$now"
      if command -v gzip >/dev/null 2>&1; then quick | gzip -c; else quick; fi
      ;;
  esac
fi
