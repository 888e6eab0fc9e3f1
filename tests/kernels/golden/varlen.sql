select t, t::varchar(40) as v, t::bpchar(6) as p, decode(md5(t), 'hex') as b, to_json(t) as j, to_jsonb(t) as jb,
       left(t, 30)::name as n
from (values (''), ('a'), (null), ('naïve'), ('Ωμέγα'), ('日本語'), ('😀👩‍👩‍👧‍👦'), (repeat('x', 33)), (repeat('é', 40))) as v(t)
