from typing_extensions import Buffer

class Column(Buffer):
    def __len__(self) -> int: ...
