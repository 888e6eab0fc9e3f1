select g as id, nullif(g % 257, 0)::int2 as small, case when g % 256 <> 255 then repeat('ä', g % 5) end as t,
       nullif(g % 3, 0) = 1 as b, (g * 0.5)::numeric(10, 1) as n
from generate_series(1, 600) as g
