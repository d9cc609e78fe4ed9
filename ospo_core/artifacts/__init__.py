"""Artifacts: identities, storage, shards and manifests."""
