package postgres

// codeChanges finds what asks for the login rather than the role, in one
// database: everything that holds code. $1 is the schema of our own functions.
const codeChanges = `
with mine as (
	select oid from pg_catalog.pg_namespace
	where nspname not in ('pg_catalog', 'information_schema', $1::text) and nspname !~ '^pg_(toast|temp)'
), code(what, body) as (
	select 'policy ' || p.polname || ' on ' || p.polrelid::pg_catalog.regclass,
		coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '') || ' ' || coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')
	from pg_catalog.pg_policy p
	union all
	select 'function ' || p.oid::pg_catalog.regprocedure, pg_catalog.pg_get_functiondef(p.oid)
	from (select p.oid from pg_catalog.pg_proc p join mine on mine.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang
		where p.prokind in ('f', 'p') and l.lanname not in ('c', 'internal') offset 0) p
	union all
	select 'view ' || c.oid::pg_catalog.regclass, pg_catalog.pg_get_viewdef(c.oid)
	from pg_catalog.pg_class c join mine on mine.oid = c.relnamespace where c.relkind in ('v', 'm')
	union all
	select 'rule ' || r.rulename || ' on ' || c.oid::pg_catalog.regclass, pg_catalog.pg_get_ruledef(r.oid)
	from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class join mine on mine.oid = c.relnamespace
	where r.rulename <> '_RETURN'
	union all
	select 'default of ' || d.adrelid::pg_catalog.regclass || '.' || a.attname, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
	from pg_catalog.pg_attrdef d join pg_catalog.pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
	join pg_catalog.pg_class c on c.oid = d.adrelid join mine on mine.oid = c.relnamespace
	union all
	select 'constraint ' || o.conname || ' on ' || o.conrelid::pg_catalog.regclass, pg_catalog.pg_get_constraintdef(o.oid)
	from pg_catalog.pg_constraint o join mine on mine.oid = o.connamespace where o.contype = 'c' and o.conrelid <> 0
	union all
	select 'trigger ' || t.tgname || ' on ' || t.tgrelid::pg_catalog.regclass, pg_catalog.pg_get_triggerdef(t.oid)
	from pg_catalog.pg_trigger t where not t.tgisinternal
)
select 'session-user', what from code where body ~* '\msession_user\M'
union all
select 'own-sessions', what from code where body ~* '\m(pg_cancel_backend|pg_terminate_backend|pg_stat_activity|pg_stat_get_activity)\M'
union all
select 'cron', 'jobs of pg_cron that run as the login' from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'cron' and c.relname = 'job'
order by 1, 2`

// mappingChanges finds user mappings that log in elsewhere as the role, $1, or
// whose options the administrator may not see.
const mappingChanges = `
select 'user-mapping', 'server ' || m.srvname || ' for ' || m.usename || case when m.umoptions is null then ' (options not visible)' else '' end
from pg_catalog.pg_user_mappings m
where m.umoptions is null or exists (select from pg_catalog.unnest(m.umoptions) o where o = 'user=' || $1::text)
order by 2`

// sharedChanges finds subscriptions that the role owns: their workers log in as it.
const sharedChanges = `
select 'subscription', d.datname || '.' || s.subname
from pg_catalog.pg_subscription s join pg_catalog.pg_database d on d.oid = s.subdbid
join pg_catalog.pg_roles r on r.oid = s.subowner where r.rolname = $1::text order by 2`
