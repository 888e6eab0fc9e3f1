select array[1, null, 3] as a, row(1, 'two') as r, int4range(1, 5) as i, point '(1,2)' as p, '192.168.1.5/24'::inet as ip,
       '{[1,3),[5,8)}'::int4multirange as m, '12:00+02'::timetz as tz, b'101' as bits, 12.34 as free, 'a'::"char" as c
union all
select null, null, null, null, null, null, null, null, null, null
