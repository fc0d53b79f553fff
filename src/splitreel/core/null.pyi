from splitreel.core.tape import Transport

class NullDrive(Transport):
    object_id: int
    file_id: int
    end: int
    bytes_written: int
    def __init__(self) -> None: ...
