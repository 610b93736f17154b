"""An agent in a Modal container. Unverified on Modal: it was only compiled here.

    modal secret create vibeserve-join VIBESERVE_AGENT_JOIN="$(cat line)"
    modal run deploy/cloud/modal.py

The line: `vibeserve agents token --labels nvidia.com/gpu.product=... --ttl 1h` at a coordinator that the container can reach over TLS.

Modal runs containers under gVisor. Where the agent's probe finds that it can't make namespaces there, it registers `sandbox: none`, and campaigns with
code written by a model are refused on it: then it is good for what ships with the product alone.
"""

import pathlib
import signal
import subprocess

import modal

# What `vibeserve bundle` wrote, unpacked: one folder vibeserve-VERSION-linux-x64.
BUNDLE = pathlib.Path(".vibeserve/unpacked")
HOURS = 12
# The agent's own drain, and the 25 s after it.
DRAIN_MS = 20_000

app = modal.App("vibeserve-agent")
image = (
    modal.Image.debian_slim()
    .apt_install("git", "g++", "util-linux")
    .add_local_dir(str(BUNDLE), "/opt/vibeserve-bundle", copy=True)
    .run_commands("mv /opt/vibeserve-bundle/vibeserve-* /opt/vibeserve")
)
# Its key and where it belongs: the same agent at the next start. One volume and one line an agent.
state = modal.Volume.from_name("vibeserve-agent-1", create_if_missing=True)


@app.function(
    image=image,
    gpu="H100",
    timeout=HOURS * 3600,
    max_containers=1,
    volumes={"/state": state},
    secrets=[modal.Secret.from_name("vibeserve-join")],
)
def agent() -> int:
    """Runs the agent until its time is over; SIGINT and SIGTERM drain it."""
    argv = ["/opt/vibeserve/bin/gpu-agent", "--data", "/tmp/vibeserve-agent", "--cache", "/tmp/vibeserve-cache"]
    argv += ["--seed-file", "/state/agent.nk", "--agent-id", "modal-1", "--drain-ms", str(DRAIN_MS)]
    with subprocess.Popen(argv) as child:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: child.terminate())
        code = child.wait()
    state.commit()
    return code


@app.local_entrypoint()
def main() -> None:
    """Starts it and waits."""
    print(f"the agent ended with {agent.remote()}")
