"""The same work in SQL: DuckDB and chDB read the lake's own files and count, deduplicate, cut and charge exactly.

The best form is the fastest that was found for each. DuckDB: add up everything by the lake's numbers, find repeated
key hashes, and take off what the full key shows to be repeated or replaced. chDB: the same, with its own functions.
The plain form is what one would write first: the last row of each key by a window, then sums by name.
"""

from __future__ import annotations

OFFSET, DAY = 28_800, 86_400  # Asia/Shanghai has one offset all year

# One row per attempt and local day: d the day, sec its seconds, act those without suspension, closes 1 where it ended.
# Suspended seconds of an attempt that crosses midnight are spread by largest remainder, earliest first.
WHO = 'cluster, "partition", qos, account, "user"'
_PIECES = """
    select {keys}, cpus, nodes, first as d, e - s as sec, e - s - least(p, e - s) as act,
        (ended and e < ({day} * (first + 1) - {offset}))::int as closes
    from {rows} where last = first
    union all
    select {keys}, cpus, nodes, d, sec,
        sec - (share + (rank <= left_over)::int) as act, (ended and e < ({day} * (d + 1) - {offset}))::int as closes
    from (
        select *, least(p, e - s) - sum(share) over w as left_over,
            row_number() over (w order by (least(p, e - s) * sec) % (e - s) desc, d) as rank
        from (select *, (least(p, e - s) * sec) // (e - s) as share from (
            select *, least(e, {day} * (d + 1) - {offset}) - greatest(s, {day} * d - {offset}) as sec
            from (select *, unnest(range(first, last + 1)) as d from {rows} where last > first)))
        window w as (partition by {attempt})
    )
    union all
    select {keys}, cpus, nodes, last + 1, 0, 0, 1 from {rows} where ended and s < e and (e + {offset}) % {day} = 0
"""
_COLUMNS = "start_second as s, end_second as e, ended, suspended_seconds as p, cpus, nodes"
_SPANS = f"(s + {OFFSET}) // {DAY} as first, greatest((s + {OFFSET}) // {DAY}, (e + {OFFSET} - 1) // {DAY}) as last"
_SUMS = "sum(cpus * act) as cpu, sum(nodes * sec) as node, sum(sec) as wall, sum(closes) as jobs"


def _pieces(keys: str, rows: str, attempt: str) -> str:
    return _PIECES.format(keys=keys, rows=rows, attempt=attempt, day=DAY, offset=OFFSET)


def best(events: str, date: str) -> list[str]:
    """Return the statements that add one date to the table `rollup`."""
    files = f"read_parquet('{events}/start_date={date}/*.parquet')"
    narrow = f"select key_hash, recorded_seq, who_number as w, cards_number as c, {_COLUMNS} from {files}"
    sums = f"select w, c, d, {_SUMS} from"
    return [
        f"create or replace temp table n as select *, {_SPANS} from ({narrow})",
        "create or replace temp table twice as select key_hash from n group by key_hash having count(*) > 1",
        f"""create or replace temp table lost as select * from n where recorded_seq in (
            select recorded_seq from (
                select recorded_seq,
                    row_number() over (partition by source, id order by revision desc, recorded_seq) as r
                from {files} where key_hash in (select key_hash from twice)) where r > 1)""",
        f"""insert into rollup select '{date}', d, w, c, sum(cpu), sum(node), sum(wall), sum(jobs) from (
            {sums} ({_pieces("w, c", "n", "recorded_seq")}) group by all
            union all select w, c, d, -cpu, -node, -wall, -jobs
            from ({sums} ({_pieces("w, c", "lost", "recorded_seq")}) group by all)) group by all""",
    ]


def plain(events: str) -> str:
    """Return the query that makes the table `usage` at once, as one would write it first."""
    files = f"read_parquet('{events}/*/*.parquet')"
    latest = f"""select *, {_SPANS} from (select {WHO}, cards, recorded_seq, {_COLUMNS} from {files}
        qualify row_number() over (partition by source, id order by revision desc, recorded_seq) = 1)"""
    return f"""create table named as with latest as ({latest})
        select {WHO}, cards, d, {_SUMS} from ({_pieces(f"{WHO}, cards", "latest", "recorded_seq")}) group by all"""


def floor(events: str, by: str) -> str:
    """Return the query that only scans the columns and sums them by the same groups."""
    return f"""create or replace temp table floor as
        select {by}, first as d, sum(cpus * (e - s - p)) as cpu, sum(nodes * (e - s)) as node,
            sum(e - s) as wall, count(*) as jobs
        from (select {by}, {_COLUMNS}, (start_second + {OFFSET}) // {DAY} as first
            from read_parquet('{events}/*/*.parquet', hive_partitioning=true, hive_types_autocast=false))
        group by all"""


CREATE_ROLLUP = """create table rollup (start_date varchar, d bigint, w bigint, c bigint,
    cpu bigint, node bigint, wall bigint, jobs bigint)"""


def name_rollup(names: str) -> str:
    """Return the query that puts names for numbers."""
    known = f"select * from read_parquet('{names}/*.parquet')"
    return f"""create table named as select n.cluster as cluster, n."partition" as "partition", n.qos as qos,
        n.account as account, n."user" as "user", k.cards as cards, d,
        sum(cpu) as cpu, sum(node) as node, sum(wall) as wall, sum(jobs) as jobs from rollup r
        join ({known} where dictionary = 'who') n on n.number = r.w
        join (select number, cards from ({known}) where dictionary = 'cards') k on k.number = r.c group by all"""


def usage(first_day: int, last_day: int) -> str:
    """Return the month's usage, one row for all resources."""
    thousandths = "case when cards = '' then 0 else cast(split_part(cards, ':', 2) as bigint) end"
    sums = {"cpu": "cpu", "node": "node", "wall": "wall", "card": f"wall * {thousandths}", "jobs": "jobs"}
    columns = ", ".join(f"cast(sum({what}) as bigint) as {name}" for name, what in sums.items())
    return f"""create table usage as select {WHO}, d, {columns}
        from named where d between {first_day} and {last_day} group by all"""


def charges(tables: str) -> str:
    """Return each customer's quantity and amount by SKU, rounded once, half away from zero."""
    return f"""create table charges as select customer, sku, cast(quantity as bigint) as quantity,
        cast((2 * cast(quantity as {{wide}}) * cents + 3600000) // 7200000 as bigint) as amount_minor from (
            select customer, sku, cents,
                sum(case when "partition" like 'gpu%' then card else cpu * 1000 end) as quantity
            from usage join read_parquet('{tables}/owners.parquet') using (account)
            join read_parquet('{tables}/prices.parquet') using (cluster, "partition")
            group by customer, sku, cents) where quantity > 0"""
