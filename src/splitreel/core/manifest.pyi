from splitreel.core.pax import PaxWriter

class ManifestWriter:
    def __init__(self, pax: PaxWriter, backup: bytes, block_size: int) -> None: ...
