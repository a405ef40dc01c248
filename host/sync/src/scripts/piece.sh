# Sends a piece of one file, whose name comes in on standard input. Set before: root, offset, length.
LC_ALL=C
export LC_ALL offset length
cd -- "$root" || exit 1
piece() {
  xargs -0 -n 1 sh -c 'tail -c "+$((offset + 1))" "$1" | head -c "$length"' sh
}
if command -v gzip >/dev/null 2>&1; then piece | gzip -c; else piece; fi
