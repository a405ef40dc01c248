"""Makes the official client's throw-away key an Ed25519 one.

The gateway takes any key, but its library is built without RSA, and the client can only make RSA keys.
"""
import io
import os
import subprocess
import tempfile

try:
    import paramiko
except ImportError:
    pass
else:

    def _key(*_, **__):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "key")
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
            with open(path, encoding="ascii") as file:
                return paramiko.Ed25519Key.from_private_key(io.StringIO(file.read()))

    paramiko.RSAKey.generate = staticmethod(_key)
    paramiko.Ed25519Key.write_private_key = lambda self, file, password=None: file.write("")
    paramiko.RSAKey.from_private_key = staticmethod(_key)
