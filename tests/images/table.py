"""table says which images there are: what mkfs is told, how they are mounted, and what is put into them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.images import fillers as f

# xfsprogs makes nothing below 300 MB unless a test asks; see validate_supported in its mkfs/xfs_mkfs.c.
SMALL_XFS = {"TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}

PLAIN = (f.plain,)
EXT2 = (f.basic, f.boundaries, f.huge, f.big_directories, f.links, f.xattrs)
EXT4 = (*EXT2, f.punched, f.ranges, f.inode_flags)
XFS = (*EXT4, f.big_xattrs, f.many_xattrs, f.projects, f.fragmented_directory)


@dataclass(frozen=True)
class Image:
    """One file system.

    ``always``: it is one of the few that every run of the tests makes. ``then``: commands that change the filled file
    system, which is filled with a little more after them. ``afterwards``: commands that give the image what this kernel
    would not mount; they change no file.
    """

    name: str
    command: tuple[str, ...]
    block_size: int
    fillers: tuple[f.Filler, ...]
    megabytes: int = 128
    mount: str = ""
    read_only: str = "ro,noload"
    always: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    afterwards: tuple[str, ...] = ()
    then: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


def ext(
    name: str,
    options: str,
    fillers: tuple[f.Filler, ...] = EXT4,
    *,
    kind: str = "ext4",
    block_size: int = 4096,
    megabytes: int = 128,
    mount: str = "",
    always: bool = False,
    afterwards: tuple[str, ...] = (),
    then: tuple[str, ...] = (),
) -> Image:
    """An image by mke2fs; options are its own, blanks between them."""
    command = ("mke2fs", "-t", kind, "-q", "-F", "-b", str(block_size), *options.split())
    read_only = "ro" if kind == "ext2" else "ro,noload"
    return Image(
        name, command, block_size, fillers, megabytes, mount, read_only, always, afterwards=afterwards, then=then
    )


def xfs(
    name: str,
    options: str,
    fillers: tuple[f.Filler, ...] = XFS,
    *,
    block_size: int = 4096,
    megabytes: int = 200,
    mount: str = "",
    always: bool = False,
    afterwards: tuple[str, ...] = (),
    then: tuple[str, ...] = (),
) -> Image:
    """An image by mkfs.xfs; options are its own, blanks between them."""
    command = ("mkfs.xfs", "-q", "-f", "-b", f"size={block_size}", *options.split())
    return Image(
        name, command, block_size, fillers, megabytes, mount, "ro,norecovery", always, SMALL_XFS, afterwards, then
    )


FROM_EXT3 = "tune2fs -O extents,uninit_bg,dir_nlink,extra_isize,huge_file,flex_bg"

EXT_IMAGES = (
    ext("ext2_1k", "-I 128", EXT2, kind="ext2", block_size=1024, always=True),
    ext("ext2_2k", "", EXT2, kind="ext2", block_size=2048),
    ext("ext2_4k", "", EXT2, kind="ext2"),
    ext("ext2_revision0_1k", "-r 0", PLAIN, kind="ext2", block_size=1024, always=True),
    ext("ext2_revision0_4k", "-r 0", PLAIN, kind="ext2"),
    ext("ext2_no_filetype", "-O ^filetype,^dir_index,^resize_inode", EXT2, kind="ext2", block_size=1024),
    ext("ext3_1k", "", EXT2, kind="ext3", block_size=1024),
    ext("ext3_2k", "", EXT2, kind="ext3", block_size=2048, always=True),
    ext("ext3_old", "-I 128 -O ^dir_index", EXT2, kind="ext3"),
    ext("ext4_default", "", (*EXT4, f.deep), always=True),
    ext("ext4_current", "-O metadata_csum_seed,orphan_file", always=True),
    ext("ext4_1k", "", (*EXT4, f.deep), block_size=1024, always=True),
    ext("ext4_2k", "", block_size=2048),
    ext("ext4_no_journal", "-O ^has_journal"),
    ext("ext4_inode128", "-I 128"),
    ext("ext4_inode512", "-I 512"),
    ext("ext4_inode1024", "-I 1024"),
    ext("ext4_inode1024_1k", "-I 1024", block_size=1024),
    ext("ext4_no_checksums", "-O ^metadata_csum"),
    ext("ext4_uninit_bg", "-O ^metadata_csum,uninit_bg"),
    ext("ext4_uninit_bg_64bit_1k", "-O ^metadata_csum,uninit_bg,64bit", block_size=1024),
    ext("ext4_no_checksums_32", "-O ^metadata_csum,^64bit,^flex_bg"),
    ext("ext4_32", "-O ^64bit"),
    ext("ext4_desc128", "-E desc_size=128"),
    ext("ext4_no_extents", "-O ^extents,^64bit", EXT2, always=True),
    ext("ext4_no_extents_1k", "-O ^extents,^64bit", EXT2, block_size=1024),
    ext("ext4_meta_bg_32", "-O meta_bg,^resize_inode,^64bit -g 2048", block_size=1024, always=True),
    ext("ext4_meta_bg_64", "-O meta_bg,^resize_inode,64bit -g 256", block_size=1024),
    ext("ext4_meta_bg_4k", "-O meta_bg,^resize_inode -g 512"),
    ext("ext4_sparse_super2", "-O sparse_super2,^resize_inode"),
    ext("ext4_no_sparse_super", "-O ^sparse_super,^resize_inode -g 2048", block_size=1024),
    ext("ext4_flex_bg_wide", "-G 64 -g 2048", block_size=1024),
    ext("ext4_no_flex_bg", "-O ^flex_bg"),
    ext("ext4_bigalloc", "-O bigalloc -C 16384", block_size=1024, always=True),
    ext("ext4_bigalloc_4k", "-O bigalloc -C 65536 -N 20000", megabytes=512),
    ext("ext4_bigalloc_1m", "-O bigalloc -C 1048576 -N 20000", EXT2, megabytes=2048),
    ext("ext4_inline", "-O inline_data", (*EXT4, f.small_files), always=True),
    ext("ext4_inline_1k", "-O inline_data", (*EXT4, f.small_files), block_size=1024),
    ext("ext4_inline_1024", "-O inline_data -I 1024", (*EXT4, f.small_files)),
    ext("ext4_inline_no_checksums", "-O inline_data,^metadata_csum", (*EXT4, f.small_files)),
    ext("ext4_ea_inode", "-O ea_inode", (*EXT4, f.big_xattrs), always=True),
    ext("ext4_ea_inode_1k", "-O ea_inode", (*EXT4, f.big_xattrs), block_size=1024),
    ext("ext4_ea_inode_inline", "-O ea_inode,inline_data", (*EXT4, f.big_xattrs, f.small_files)),
    ext("ext4_large_dir", "-O large_dir", (*EXT4, f.names_by_thousands), block_size=1024),
    ext("ext4_quota_project", "", always=True, afterwards=("tune2fs -O quota,project",)),
    ext("ext4_encrypt", "-O encrypt,stable_inodes", always=True),
    ext("ext4_verity", "-O verity"),
    ext("ext4_mmp", "-O mmp"),
    ext("ext4_orphan_file", "-O orphan_file"),
    ext("ext4_fast_commit", "-O fast_commit"),
    ext("ext4_data_journal", "", mount="data=journal"),
    ext("ext4_deep", "", (*EXT2, f.very_punched), block_size=1024),
    ext("ext4_dir_nlink", "-N 80000", (f.many_directories,), block_size=1024, megabytes=200),
    ext("ext4_from_ext3", "", EXT2, kind="ext3", then=(FROM_EXT3, "e2fsck -fyD"), always=True),
    ext("ext4_grown", "", megabytes=100, then=("truncate -s 900M", "resize2fs -f")),
    ext("ext4_grown_meta_bg", "-O meta_bg,^resize_inode", megabytes=100, then=("truncate -s 900M", "resize2fs -f")),
    ext("ext4_shrunk", "", megabytes=900, then=("resize2fs -fM", "resize2fs -f")),
    ext("ext4_wider_inodes", "-I 128 -O ^flex_bg", then=("tune2fs -f -I 256",)),
    ext("ext4_stale_inodes", "", then=("mke2fs -t ext4 -q -F -E nodiscard,lazy_itable_init=1 -O ^has_journal",)),
    ext("ext4_errors", "-e remount-ro -M /somewhere"),
)

XFS_IMAGES = (
    xfs("xfs_default", "", (*XFS, f.reflinks, f.deep), always=True),
    xfs("xfs_1k", "", (*XFS, f.reflinks, f.very_punched), block_size=1024, always=True),
    xfs("xfs_2k", "", (*XFS, f.reflinks), block_size=2048),
    xfs("xfs_8k", "", (*XFS, f.reflinks), block_size=8192),
    xfs("xfs_64k", "", (*XFS, f.reflinks), block_size=65536, megabytes=600),
    xfs("xfs_directory_8k", "-n size=8192"),
    xfs("xfs_directory_64k", "-n size=65536"),
    xfs("xfs_1k_directory_4k", "-n size=4096", block_size=1024),
    xfs("xfs_1k_directory_64k", "-n size=65536", block_size=1024, always=True),
    xfs("xfs_inode1024", "-i size=1024", (*XFS, f.small_files)),
    xfs("xfs_inode2048", "-i size=2048", (*XFS, f.small_files)),
    xfs("xfs_nrext64", "-i nrext64=1", (*XFS, f.reflinks)),
    xfs("xfs_nrext64_1k", "-i nrext64=1", (*XFS, f.very_punched), block_size=1024, always=True),
    xfs("xfs_rmapbt", "-m rmapbt=1", (*XFS, f.reflinks)),
    xfs("xfs_no_reflink", "-m reflink=0"),
    xfs("xfs_no_bigtime", "-m bigtime=0,inobtcount=0", always=True),
    xfs("xfs_no_finobt", "-m finobt=0,inobtcount=0 -i sparse=0"),
    xfs("xfs_one_group", "-d agcount=1"),
    xfs("xfs_many_groups", "-d agsize=16m", (*XFS, f.reflinks), megabytes=500),
    xfs("xfs_odd_groups", "-d agsize=20484096", (*XFS, f.reflinks), always=True),
    xfs("xfs_sectors_4k", "-s size=4096"),
    xfs("xfs_stripes", "-d su=65536,sw=3"),
    xfs("xfs_upgraded", "-m bigtime=0,inobtcount=0", then=("xfs_admin -O bigtime=1,inobtcount=1",)),
    xfs("xfs_sparse_inodes", "-d agcount=1", (f.scattered,), megabytes=32, always=True),
    xfs("xfs_meta_uuid", "", always=True, afterwards=("xfs_admin -U generate",)),
    xfs("xfs_old_meta_uuid", "-m uuid=11111111-2222-3333-4444-555555555555"),
)

# Copied while frozen, with files open that have no name any more: what a split mirror holds.
FROZEN = ("ext2_1k", "ext3_2k", "ext4_current", "ext4_no_journal", "ext4_inline", "xfs_default", "xfs_nrext64_1k")

# Blocks that no kernel with pages of 4 KiB mounts before Linux 6.19: filled by mke2fs -d.
UNMOUNTED_IMAGES = (
    ext("ext4_8k", "-O ^has_journal", (), block_size=8192),
    ext("ext4_16k", "", (), block_size=16384),
    ext("ext4_64k", "-I 256", (), block_size=65536, megabytes=512, always=True),
    ext("ext2_64k", "", (), kind="ext2", block_size=65536, megabytes=512),
    ext("ext4_64k_inline", "-O inline_data", (), block_size=65536, megabytes=512),
)

V4 = "-m crc=0"
FEW = (f.few, f.few_xattrs)

# What few kernels and mkfs make or mount: made once by those that do (python -m tests.images.kept), and kept with what
# the kernel showed. XFS without checksums, quotas and casefolding are from Linux 6.1, parent pointers from Linux 6.18
# and xfsprogs 7.2.
KEPT_IMAGES = (
    xfs("xfs_v4", V4, (*FEW, f.big_xattrs), megabytes=64),
    xfs("xfs_v4_oldest", f"{V4} -i size=256,attr=1 -n ftype=0 -l version=1", FEW, block_size=512, megabytes=32),
    xfs("xfs_v4_1k", f"{V4} -n ftype=0", (*FEW, f.fragmented_directory), block_size=1024, megabytes=64),
    xfs("xfs_v4_ascii_ci", f"{V4} -n version=ci", FEW, megabytes=32),
    xfs("xfs_quota", "", FEW, megabytes=64, mount="uquota,gquota,pquota"),
    xfs("xfs_parent", "-n parent=1 -i exchange=1,nrext64=1 -m rmapbt=1", FEW, megabytes=128),
    xfs("xfs_parent_1k", "-n parent=1", (*FEW, f.fragmented_directory), block_size=1024, megabytes=64),
    ext("ext4_casefold", "-O casefold", (*FEW, f.casefolded), megabytes=16),
    ext("ext4_verity", "-O verity", (*FEW, f.verity), megabytes=16),
    ext("ext4_quota", "-O quota,project", (*FEW, f.projects), megabytes=16, mount="prjquota"),
)
