select g as id, case when g % 3 = 0 then null else g * 1000003::int8 end as n, case when g % 4 <> 0 then 'row ' || g end as t,
       case when g % 5 <> 0 then (g * 12.34)::numeric(12, 2) end as price, g % 2 = 0 as even,
       case when g % 7 <> 0 then date '2020-01-01' + g end as d, case when g % 6 <> 0 then make_interval(months => g) end as i,
       case when g % 2 = 0 then decode(repeat('5a00000005', g), 'hex') end as b,
       case when g % 3 <> 1 then md5(g::text)::uuid end as u, jsonb_build_object('g', g) as j
from generate_series(1, 20) as g
