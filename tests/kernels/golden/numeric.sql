select v::numeric(9, 2) as n9, v::numeric(18, 4) as n18, v::numeric(38, 10) as n38, v::numeric(76, 38) as n76,
       v::numeric(5, -3) as negative_scale, (v / 1e9)::numeric(3, 5) as small, v::numeric(20, 0) as whole
from (values (0), (0.01), (-0.01), (1), (-1), (10000), (99999), (-9999.99), (1234567.89), (null), (12.5)) as t(v)
