"""Makes NAME.wasm of this folder: a component with plugin.toml in the custom section `pcoder:manifest`."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    manifest = (HERE / "plugin.toml").read_bytes()
    name = tomllib.loads(manifest.decode())["name"]
    # Your copy of the contract, or that of pcoder's own repository while the template still lies in it.
    contract = next((it for it in (HERE / "wit", HERE / "../../wit/pcoder-plugin@0.1.0") if it.is_dir()), None)
    if contract is None:
        sys.exit("copy pcoder's folder `wit/pcoder-plugin@0.1.0` here and call it `wit`")
    build = HERE / "build"
    build.mkdir(exist_ok=True)
    component = build / "component.wasm"
    tool = shutil.which("componentize-py", path=str(Path(sys.executable).parent)) or "componentize-py"
    subprocess.run(
        [tool, "--quiet", "--wit-path", contract, "--wit-path", HERE / "world.wit", "--world", "example:plugin/plugin"]
        + ["componentize", "--python-path", HERE / "src", "--output", component, "app"],
        check=True,
    )
    (HERE / f"{name}.wasm").write_bytes(component.read_bytes() + section("pcoder:manifest", manifest))
    print(f"{name}.wasm")


def section(name: str, content: bytes) -> bytes:
    """A custom section: the id 0, its size, the length of its name, its name, its content."""
    body = leb128(len(name)) + name.encode() + content
    return b"\0" + leb128(len(body)) + body


def leb128(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


if __name__ == "__main__":
    main()
