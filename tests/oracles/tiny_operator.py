"""The TOML of an operator with one customer, small enough to compute by hand."""

FACTS = """
[operator]
billing_timezone = "Asia/Shanghai"
tax_rate = 0.06
[[clusters]]
name = "hpc1"
timezone = "Asia/Shanghai"
cpus_per_core = [{ cpus = 2 }]
partitions = ["cpu"]
[[customers]]
id = "u-north"
[[contracts]]
number = "HT-1"
customer = "u-north"
valid_from = 2026-01-01
last_day = 2026-12-31
[[contracts.prices]]
sku = "card-hour"
effective_from = 2026-01-01
unit_price = 3
[[mappings]]
cluster = "hpc1"
account = "physics"
project = "u-north/physics"
[[mappings]]
cluster = "hpc1"
account = "physics"
user = "eve"
project = "u-north/visitors"
[[mappings]]
cluster = "*"
account = "physics"
user = "bob"
project = "u-north/elsewhere"
[[measures]]
name = "core_without_cards"
quantity = "cpu"
when = "no_cards"
[[skus]]
id = "core-hour"
unit = "core-hour"
[[skus]]
id = "card-hour"
unit = "card-hour"
[[skus]]
id = "lease"
unit = "card-month"
tax_rate = 0.13
[[skus]]
id = "ticket"
unit = "piece"
[[sku_rules]]
order = 2
cluster = "*"
partition = "*"
qos = "*"
resource = "measure:core_without_cards"
sku = "core-hour"
[[sku_rules]]
order = 1
cluster = "*"
partition = "*"
qos = "free"
resource = "measure:core_without_cards"
included = true
[[sku_rules]]
order = 3
cluster = "*"
partition = "*"
qos = "*"
resource = "card:*"
sku = "card-hour"
[[sku_rules]]
order = 9
cluster = "*"
partition = "*"
qos = "*"
resource = "cpu"
included = true
[[prices]]
sku = "core-hour"
effective_from = 2026-01-01
tiers = [{ up_to = 10, unit_price = 0.10 }, { up_to = 20, unit_price = "0.08" }, { unit_price = 0.05 }]
[[prices]]
sku = "core-hour"
effective_from = 2026-11-16
unit_price = 0.125
[[prices]]
sku = "card-hour"
effective_from = 2026-01-01
unit_price = 8
[[prices]]
sku = "lease"
effective_from = 2026-01-01
unit_price = 100
[[prices]]
sku = "ticket"
effective_from = 2026-11-01
unit_price = 1900
[[prices]]
sku = "ticket"
effective_from = 2026-11-13
unit_price = 2400
"""
PURCHASES = """
[[packs]]
id = "pack-1"
customer = "u-north"
contract = "HT-1"
sku = "core-hour"
quantity = 3
price = "1.00"
bought_on = 2026-11-02
valid_from = 2026-11-02
last_day = 2027-11-01
[[leases]]
id = "lease-1"
customer = "u-north"
contract = "HT-1"
sku = "lease"
quantity = 2
valid_from = 2026-11-21
last_day = 2027-11-20
project = "physics"
cluster = "hpc1"
[[one_off_charges]]
id = "ticket-1"
customer = "u-north"
contract = "HT-1"
sku = "ticket"
quantity = 2
on = 2026-11-13
"""
