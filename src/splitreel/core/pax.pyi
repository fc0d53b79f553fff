from splitreel.core.extent import ExtentMap

class PaxWriter:
    map: ExtentMap
    def __init__(self, map: ExtentMap) -> None: ...
