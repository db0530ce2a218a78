"""Where records go: the same partitions as Java's client."""

from __future__ import annotations

from streamlog.client.partitioner import StickyPartitioner, murmur2, partition_for_key

JAVA_VECTORS = [
    # key in hex, Utils.murmur2(key), toPositive(hash) % 1000: printed by kafka-clients 4.3.1
    ("", 275646681, 681),
    ("61", -1563381124, 524),
    ("6162", 316155434, 434),
    ("616263", 479470107, 107),
    ("61626364", -1323649548, 100),
    ("6162636465", 461995741, 741),
    ("3231", -973932308, 340),
    ("666f6f626172", -790332482, 166),
    ("612d6c6974746c652d6269742d6c6f6e672d737472696e67", -985981536, 112),
    ("612d6c6974746c652d6269742d6c6f6e6765722d737472696e67", -1486304829, 819),
    ("7a61c5bcc3b3c582c487", 2056704, 704),
    ("e697a5e69cace8aa9e", 1431860170, 170),
    ("35", 55100550, 550),
    ("f78a", 1288432276, 276),
    ("e1bbe7", -983584298, 350),
    ("28c0450c", -392157833, 815),
    ("e43c084f4b", 650222576, 576),
    ("839dee466d85", 609540322, 322),
    ("be6a61aa9a0c61", -2055415863, 785),
    ("bd6743e7dc978573", 496582918, 918),
    ("998e685e885cb361f8", -2143606509, 139),
    ("20bebfb01100b2765457", 1749477346, 346),
    ("0f406cc8e3a188fff11059", 239636182, 182),
    ("6fbce62655dfbd6f83b89670", -715584511, 137),
    ("d6d9f9bf52d83deedc0bf66205", 1343331766, 766),
    ("16ad682d8c478a26f45027984959", 434214673, 673),
    ("dd53b3351a572b40f27f72d37f347b", -221833639, 9),
    ("9979162cfa959d2832a46196d92c3046", 1156755985, 985),
    ("97e953c0026cc4a45eb32f92829e8d14ee", 963358898, 898),
    ("edc93517ef7da4c0ce2972cc9b060b08b646", -2060683994, 654),
    ("f3a3a05bb102f732ed235bd1283ed5021192ed", 1371039565, 565),
    ("754300c523675af9b6c4a514cacaa1b6a7367388", 2095085038, 38),
    ("53ee067b87849adf0100aa4a52cc32388c082af3d5", 1894527541, 541),
    ("bcc00bd26fae51303f23fba277b4e0602cbf7e5e9ba8", -853930442, 206),
    ("daa9395cbb3cb06feaf2456f0a5717a6b5bb127579092b", -273274790, 858),
    ("831b0279bb5070f331dc11786481868c3667cbd3ed409109", -297435578, 70),
    ("1e01aa26a3d1750dfb4178d5d1a3e2c95da3d6759f5be1c2c7", 525227248, 248),
    ("801aa2a1c6b52a321eac46580edde42d2e8a65f64ba69ddd914f", -2088283788, 860),
    ("8934917ca07a548c5dcdc46ba917160239c103a2db67f4c18eef29", -1836837953, 695),
    ("2fa68ba1aa5db9501dfbfb1177b555921451ec577ca9fa5e105f6c4a", 2061413336, 336),
    ("db3d2fdfc7b360271f6244ce3d236f400c2ec09dc6814b62dd03d65fbe", -1741989593, 55),
    ("8de47eb2786e90251df79ae83722a44af8b13632383ec12be5cd22cf0719", -1042877531, 117),
    ("223cc0a0b454e2c7a055a176b9593aa87c6f3a4e7854b9ff2181378ac08dc8", 1740772671, 671),
    ("bba296a2c5a3adb1e76e522063b8ba17bbd0507fa7ea6bcaa20ffe06f6b4a9ab", -671788112, 536),
    ("a00c570946defa77f530dd7b4ae498753e94b1a77bed00447df0506566bdc778ba", 248639362, 362),
    ("a6a2df2212db756276353fd171756fa5bece42fa4c3c3dc50333b9b318fddfe4a9d1", 1322979309, 309),
    ("49624d996480af482365ddf9cd937a9dacd9bb1373f1425c6a4f6ec6e604d75de8e560", 268334547, 547),
    ("84b082fa0a5232e619344f2ebdb9b35f93e6a6eb894d6a6e4955094702341355bc3251cd", -485594634, 14),
    ("3d81ad50aa47c2cba5245771efa41820ed01b11893718265f05dc2bee32fcee2b876bd2b97", 971454130, 130),
    ("0d162ece4ac6414a3540c923d50450f0cc5ccb1747971f4cdb6deb068f9218a9a2a95f8c1c1e", 996448918, 918),
    ("a3253e48f96cac67f4c5adf728f93cfceb618de7539f08e695970c580fbcc7ba9d29990339c14a", -1120572977, 671),
    ("8d8f41cf3a315f0490a680853957974d1cc1ccd582be528f2ebe5d95a628ad6cfee430b027e1cadd", 782412968, 968),
]


def test_murmur2_agrees_with_java() -> None:
    """Every key hashes as in Kafka's Java client, whatever its length modulo four."""
    assert [(key, murmur2(bytes.fromhex(key))) for key, _, _ in JAVA_VECTORS] == [
        (key, hashed) for key, hashed, _ in JAVA_VECTORS
    ]


def test_keys_land_on_java_partitions() -> None:
    """The partition of a key is Java's, so both languages can share a topic."""
    for key, _, partition in JAVA_VECTORS:
        assert partition_for_key(bytes.fromhex(key), 1000) == partition


def test_long_keys_hash() -> None:
    """A key longer than the prepared unpackers still hashes, and deterministically."""
    assert murmur2(b"x" * 10_000) == murmur2(b"x" * 10_000)
    assert 0 <= partition_for_key(b"y" * 1_001, 12) < 12


def test_sticky_partitioner_stays_for_a_batch_and_then_moves() -> None:
    """Records without a key fill one partition up to the batch size before the next is drawn."""
    sticky = StickyPartitioner(batch_size_bytes=1_000, draw=lambda count: 0)
    chosen = [sticky.partition("t", 100, [0, 1, 2]) for _ in range(30)]
    assert chosen == [0] * 10 + [1] * 10 + [0] * 10


def test_sticky_partitioner_leaves_a_partition_that_is_gone() -> None:
    """A partition without a leader is not chosen, even in the middle of its batch."""
    sticky = StickyPartitioner(batch_size_bytes=1_000, draw=lambda count: 0)
    assert sticky.partition("t", 100, [0, 1]) == 0
    assert sticky.partition("t", 100, [1]) == 1
