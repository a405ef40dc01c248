# Describes everything in the folder $root. Set before: root, limit, sums, batch; @FIND@ is what is left out.
LC_ALL=C
export LC_ALL sums
umask 077
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
gzip=no
command -v gzip >/dev/null 2>&1 && gzip=yes
if [ ! -e "$root" ] && [ ! -L "$root" ]; then
  echo "pcoder-sync 1 absent $gzip"
  exit 0
fi
cd -- "$root" || exit 1
list() {
  find . \( @FIND@ \) -prune -print0 -o -print0
}
describe() {
  found=$(($(list 2>/dev/null | tr -dc '\000' | wc -c)))
  if [ "$found" -gt "$limit" ]; then
    echo "pcoder-sync 1 many $found"
    return
  fi
  echo "pcoder-sync 1 folder $gzip"
  {
    status=$({ { list 2>/dev/null; echo $? >&3; } | xargs -0 -n 200 sh -c "$batch" sh >&4; echo $? >&3; } 3>&1)
    echo E $status
  } 4>&1
}
if [ $gzip = yes ]; then describe | gzip -c; else describe; fi
