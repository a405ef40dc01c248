# Packs the files whose names come in on standard input. Set before: root.
LC_ALL=C
export LC_ALL
cd -- "$root" || exit 1
# GNU tar would read `\n` in a name as a line's end, and store the second name of a file as a link to the first.
case $(tar --version 2>/dev/null) in
  *GNU*) set -- --format=gnu --no-unquote --hard-dereference --no-recursion ;;
  *) set -- ;;
esac
pack() {
  # Files that vanish meanwhile make it fail; what is missing is seen by the receiver.
  xargs -0 -n 400 tar "$@" -cf -
  return 0
}
if command -v gzip >/dev/null 2>&1; then pack "$@" | gzip -c; else pack "$@"; fi
