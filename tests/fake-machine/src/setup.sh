# Makes the instance's file system, says the holder's process id, and becomes the init of its processes.
# Runs in new mount and PID namespaces: sh -c THIS sh FILES ROOT FOLDER...
# FILES: where the instance's own folders are; ROOT: an empty folder to build in; FOLDER: what the instance may write.
set -eu
PATH=$PATH:/usr/sbin:/sbin
# Still the outer /proc, and opened by this very shell: the process id as the outside knows it.
read -r pid _ </proc/self/stat
files=$1 root=$2
shift 2

mount --rbind / "$root"
# What is bound below must not bring the new root along.
mount --make-runbindable "$root"

# A mount point that this machine lacks cannot be made in its folders. The nearest folder that exists is replaced by
# one in memory, in which everything of it is bound again.
replace() {
    mount -t tmpfs -o mode=755 pcoder "$root$1"
    for entry in "$1"/* "$1"/.[!.]*; do
        if [ -L "$entry" ]; then
            cp -P "$entry" "$root$entry"
        elif [ -d "$entry" ]; then
            mkdir "$root$entry"
            mount --rbind "$entry" "$root$entry"
        elif [ -e "$entry" ]; then
            : >"$root$entry"
            mount --bind "$entry" "$root$entry"
        fi
    done
}
parents=$(for folder; do
    [ -d "$root$folder" ] && continue
    parent=${folder%/*}
    until [ -d "$parent/" ]; do parent=${parent%/*}; done
    printf '%s/\n' "$parent"
done | sort -u)
# A folder comes before those in it.
for parent in $parents; do replace "${parent%/}"; done
for folder; do
    [ -d "$root$folder" ] || mkdir -p "$root$folder"
done

mounts=$(cat /proc/self/mountinfo)
while read -r _ _ _ _ point options _; do
    case $point in *\\*) point=$(printf %b "$point") ;; esac
    case $point in "$root" | "$root"/*) ;; *) continue ;; esac
    case ${point#"$root"} in /dev | /dev/* | /proc | /proc/* | /sys | /sys/*) continue ;; esac
    case $options in rw*) ;; *) continue ;; esac
    mount -o "remount,bind,ro${options#rw}" "$point" 2>/dev/null || :
done <<END
$mounts
END

for folder; do
    mount --bind "$files$folder" "$root$folder"
done
# A container's masked /proc may not be mounted anew; then the outer one stays.
mount -t proc proc "$root/proc" 2>/dev/null || :

cd "$root"
pivot_root . .
umount -l .
cd /
printf '%s\n' "$pid"
# Orphans are reaped by themselves where their parent ignores their death. The holder ends with its input.
# (`trap '' CHLD` does not outlast dash.)
exec env --ignore-signal=CHLD cat >/dev/null 2>&1
