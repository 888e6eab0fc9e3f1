select v from (values ('[1,2.5,-3]'::vector), (null), ('[0]')) as t(v)
