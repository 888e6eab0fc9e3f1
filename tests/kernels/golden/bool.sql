select v from (values (true), (false), (null), (true), (false), (false), (true), (true), (null), (true)) as t(v)
