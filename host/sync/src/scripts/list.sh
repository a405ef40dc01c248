# Defines `quick` and `brief`: everything in the folder without a file being read. Only GNU's find can.
#
# `quick` says for each thing a letter, what is said of it, its name and, for a link, where it leads; NUL ends the last
# two. Of a folder no time: it is one's own when something is put aside in it. `brief` says of that what changes when
# anything does: a file's or a link's status has another time then. @FIND@ is what is left out.
quick() {
  find . \( @FIND@ \) -prune -printf 'i %p\0\0' \
    -o -type d -readable -executable -printf 'd %D %m %p\0\0' -o -type d -printf 'u %p\0\0' \
    -o -type f -readable -printf 'f %C@ %i %D %m %s %T@ %p\0\0' -o -type f -printf 'r %C@ %i %p\0\0' \
    -o -type l -printf 'l %C@ %i %p\0%l\0' -o -printf 'o %p\0\0' 2>/dev/null
  printf 'E %s\0' $?
}
brief() {
  find . \( @FIND@ \) -prune -printf 'i %p\0' \
    -o -type d -readable -executable -printf 'd %m %p\0' -o -type d -printf 'u %p\0' \
    -o \( -type f -o -type l \) -printf '%C@ %i %p\0' -o -printf 'o %p\0' 2>/dev/null
  printf 'E %s\0' $?
}
