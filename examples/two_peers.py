"""The smallest mesh: two nodes in one program, one broadcast and one message to a single peer.

Run it with ``python examples/two_peers.py``; it ends on its own. Encryption, signatures and acknowledgements are real:
nothing here is a mock.
"""

import asyncio

from zmesh import MeshMessage, MeshNetworkClient, MessageType, PeerInfo


def card(mesh: MeshNetworkClient) -> PeerInfo:
    """What one operator tells the other: a name, an address and a public key."""
    return PeerInfo(mesh.peer_id, multiaddr=f"/ip4/127.0.0.1/tcp/{mesh.listen_port}", public_key=mesh.public_key)


async def main() -> None:
    """Start two nodes, let them vouch for each other, and send."""
    heard = asyncio.Event()

    def on_gossip(message: MeshMessage) -> None:
        print(f"bob heard from {message.sender_id}: {message.payload['text']}")
        heard.set()

    # Port 0 takes any free port; a validator keeps the default, 9090.
    alice = MeshNetworkClient("alice", listen_port=0, listen_host="127.0.0.1")
    bob = MeshNetworkClient("bob", listen_port=0, listen_host="127.0.0.1")
    bob.register_handler(MessageType.GOSSIP, on_gossip)

    async with alice, bob:
        # Each side has to know the other's key: no other peer gets in.
        alice.peers["bob"] = card(bob)
        bob.peers["alice"] = card(alice)

        # A broadcast. It is sent before the two are linked, and arrives as soon as they are.
        await alice.broadcast(MessageType.GOSSIP, {"text": "hello, everybody"})
        await heard.wait()

        # A direct message: the result is true once bob has verified and queued it.
        result = await alice.send_model_delta("bob", round_id="round_001", model_cid="QmX", quality_score=95.5)
        print(f"alice sent a model delta to bob: {result.value}")


if __name__ == "__main__":
    asyncio.run(main())
