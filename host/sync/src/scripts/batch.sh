# Describes its arguments, all of which begin with `./` or are `.`. In order: how many; their names; a line for each
# with its mode, size and time, or `-`; the targets of the links; a letter for each; the sums of the files.
printf 'B %s\n' $#
printf '%s\0' "$@"
if out=$(stat -c '%f %s %Y' "$@" 2>/dev/null) && [ $(($(printf '%s\n' "$out" | wc -l))) -eq $# ]; then
  printf '%s\n' "$out"
else
  for f do stat -c '%f %s %Y' "$f" 2>/dev/null || echo -; done
fi
types=
for f do
  shift
  if [ -L "$f" ]; then t=l
  elif [ -d "$f" ]; then
    # What cannot be listed is not empty.
    if [ -r "$f" ] && [ -x "$f" ]; then t=d; else t=u; fi
  elif [ -f "$f" ]; then t=f
  elif [ -e "$f" ]; then t=o
  else t=-
  fi
  @IGNORED@
  case $t in
    f) set -- "$@" "$f" ;;
    l) printf l; readlink -n "$f" 2>/dev/null; printf '\0' ;;
  esac
  types=$types$t
done
printf 'T%s\n' "$types"
eval "$sums"
