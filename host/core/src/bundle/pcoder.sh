#!/bin/sh
# Starts the pcoder of this folder, wherever the folder is and whatever its name holds.
self=$0
# A link to this file leads to the folder that the file is in.
while [ -L "$self" ]; do
    link=$(readlink "$self"; echo x)
    link=${link%?x}
    case $link in
        /*) self=$link ;;
        *) self=${self%/*}/$link ;;
    esac
done
case $self in
    */*) here=${self%/*} ;;
    *) here=. ;;
esac

machine="$(uname -s) $(uname -m)"
case $machine in
    "Linux x86_64") platforms="linux-x64 linux-x64-musl" ;;
    "Linux aarch64" | "Linux arm64") platforms="linux-arm64 linux-arm64-musl" ;;
    "Darwin x86_64") platforms="darwin-x64" ;;
    "Darwin arm64") platforms="darwin-arm64 darwin-x64" ;;
    *) platforms= ;;
esac
for platform in $platforms; do
    program=$here/bin/$platform/pcoder
    if [ -x "$program" ]; then
        exec "$program" "$@"
    elif [ -f "$program" ]; then
        echo "error: $program may not be started here" >&2
        echo >&2
        echo "hint: mount that disk without \`noexec\`, and with \`fmask=0022\` if it has no modes, or copy the folder" >&2
        exit 1
    fi
done
echo "error: this folder has no pcoder for $machine" >&2
echo >&2
echo "hint: on such a machine, make a folder for it with \`pcoder bundle export\`" >&2
exit 3
