select int2 '-32768' as i2, int4 '-2147483648' as i4, int8 '-9223372036854775808' as i8, oid '4294967295' as o,
       float4 '-0' as f4, float8 'NaN' as f8, date '4713-01-01 BC' as d, time '23:59:59.999999' as t,
       timestamp '1969-12-31 23:59:59.999999' as ts, timestamptz '294247-01-10 04:00:54.775807+00' as tz,
       pg_lsn 'FFFFFFFF/FFFFFFFF' as lsn, xid8 '18446744073709551615' as x8
union all
select 32767::int2, 2147483647, 9223372036854775807, 0, 'Infinity', 5e-324, '5874897-12-31', '0:00',
       '4713-01-01 00:00:00 BC', '2000-01-01 00:00:00+00', '0/0', '0'
union all
select null::int2, null, null, null, null, null, null, null, null, null, null, null
union all
select 258::int2, 16909060, 72623859790382856, 16909060, 1.5, -2.25, '1970-01-01', '12:34:56.789012',
       '1970-01-01', '1969-12-31 23:59:59.999999+00', '1/2', '4294967296'
