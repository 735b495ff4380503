-- Set-up of Keyturn for the role {{.Role}}{{with .Credential}} (credential {{.}}){{end}}, to be read before it is run.
{{if .CreateRole}}-- Run it in database {{.Database}} as {{.Admin}}, the administrator itself, in one piece:
--   psql -X -v ON_ERROR_STOP=1 -U {{.Admin}} -d {{.Database}} -f setup.sql
-- Somebody with more rights makes that possible before, once:
--   CREATE ROLE {{ident .Admin}} LOGIN CREATEROLE;  \password {{.Admin}}
--   GRANT CREATE ON DATABASE {{ident .Database}} TO {{ident .Admin}};
--   GRANT pg_signal_backend, pg_read_all_stats TO {{ident .Admin}};
--   GRANT {{ident .Role}} TO {{ident .Admin}} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;  -- from PostgreSQL 16 on, if the role is there
{{else}}-- Run it in database {{.Database}} as a superuser (or as the administrator of a
-- managed service), in one piece:  psql -X -v ON_ERROR_STOP=1 -d {{.Database}} -f setup.sql
{{end -}}
-- It may be run again at any time: what is there already stays, and the
-- settings of the logins are copied from the role anew. No password is in it.
BEGIN;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;

-- 1. What must be true before anything is made.
DO $keyturn$
DECLARE _is record;
BEGIN
  IF current_database() <> {{lit .Database}} THEN
    RAISE EXCEPTION 'this is database %, and the script is for {{.Database}}', current_database();
  END IF;
  IF current_setting('server_version_num')::int < 120000 THEN
    RAISE EXCEPTION 'PostgreSQL 12 or later is needed';
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Role}} AND (rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls OR oid < 16384)) THEN
    RAISE EXCEPTION 'role {{.Role}} is a superuser, has CREATEROLE, REPLICATION or BYPASSRLS, or belongs to PostgreSQL: give its tables to a plain role first';
  END IF;
  IF EXISTS (SELECT FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
             WHERE n.nspname = {{lit .Schema}} AND r.rolname <> {{lit .Owner}}) THEN
    RAISE EXCEPTION 'schema {{.Schema}} exists and belongs to somebody else';
  END IF;
{{- if .CreateRole}}
  IF current_user <> {{lit .Admin}} THEN
    RAISE EXCEPTION 'this is %, and with rights: createrole the administrator {{.Admin}} runs the script itself', current_user;
  END IF;
  SELECT * INTO _is FROM pg_roles WHERE rolname = {{lit .Admin}};
  IF _is.rolsuper OR _is.rolreplication OR _is.rolbypassrls OR NOT _is.rolcreaterole THEN
    RAISE EXCEPTION 'the administrator {{.Admin}} needs CREATEROLE, and may be no superuser nor have REPLICATION or BYPASSRLS';
  END IF;
  IF NOT has_database_privilege(current_database(), 'CREATE') THEN
    RAISE EXCEPTION 'the administrator needs: GRANT CREATE ON DATABASE {{ident .Database}} TO {{ident .Admin}}';
  END IF;
  -- Up to PostgreSQL 15 CREATEROLE reaches every role that is no superuser; from 16
  -- on only those that it has ADMIN on, as it has on those that it made.
  IF current_setting('server_version_num')::int >= 160000 THEN
    FOR _is IN SELECT r.rolname FROM pg_roles r WHERE r.rolname = ANY (ARRAY[{{lit .Role}}]::text[] || {{array .Logins}})
        AND NOT pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION') LOOP
      RAISE EXCEPTION 'the administrator needs: GRANT % TO {{ident .Admin}} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', quote_ident(_is.rolname);
    END LOOP;
    PERFORM set_config('createrole_self_grant', '', true); -- what it makes it does not become a member of
  END IF;
{{- else}}
  SELECT * INTO _is FROM pg_roles WHERE rolname = {{lit .Owner}};
  IF FOUND AND (_is.rolcanlogin OR _is.rolsuper OR _is.rolcreatedb OR _is.rolreplication OR _is.rolbypassrls OR EXISTS (
       SELECT FROM pg_auth_members m WHERE m.roleid = _is.oid AND m.member <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
       AND (coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)))) THEN
    RAISE EXCEPTION 'role {{.Owner}} exists, and may log in, has more than CREATEROLE, or has members: it must be nobody''s';
  END IF;
  SELECT * INTO _is FROM pg_roles WHERE rolname = {{lit .Admin}};
  IF FOUND AND (_is.rolsuper OR _is.rolcreaterole OR _is.rolcreatedb OR _is.rolreplication OR _is.rolbypassrls) THEN
    RAISE EXCEPTION 'the administrator {{.Admin}} is a superuser, or has CREATEROLE, CREATEDB, REPLICATION or BYPASSRLS: it needs a login without any attribute';
  END IF;
{{- end}}
END $keyturn$;

{{if .CreateRole}}-- 2. The administrator owns the functions, which do what it may do anyway. It looks
--    into the sessions of others, and ends those of logins that are disarmed.
DO $keyturn$
DECLARE _right text;
BEGIN
  FOREACH _right IN ARRAY ARRAY['pg_signal_backend', 'pg_read_all_stats'] LOOP
    IF NOT pg_has_role(_right, 'USAGE') THEN
      BEGIN
        EXECUTE format('GRANT %I TO %I', _right, current_user); -- up to PostgreSQL 15 CREATEROLE is enough
      EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the administrator needs: GRANT pg_signal_backend, pg_read_all_stats TO {{ident .Admin}}';
      END;
    END IF;
  END LOOP;
END $keyturn$;
{{else}}-- 2. The owner of the functions: nobody logs in as it, and nobody is a member.
--    CREATEROLE lets it change logins that are no superusers (from PostgreSQL 16 on
--    only those that it has ADMIN on), so that nothing here runs as a superuser.
DO $keyturn$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Owner}}) THEN
    CREATE ROLE {{ident .Owner}} NOLOGIN CREATEROLE;
  END IF;
  GRANT pg_signal_backend, pg_read_all_stats TO {{ident .Owner}};
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE format('GRANT %I TO %I', {{lit .Owner}}, current_user); -- taken back in 7
  END IF;
  BEGIN
    GRANT SELECT (oid, rolpassword) ON pg_authid TO {{ident .Owner}}; -- whether there is a password
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'pg_authid cannot be read here: that a password is gone will be proved by the login alone';
  END;
  BEGIN
    GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO {{ident .Owner}}; -- which lines name the adopted login
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'pg_hba.conf cannot be read here: look for lines that name {{.Role}} yourself';
  END;
END $keyturn$;
{{end}}
-- 3. {{if .CreateRole}}What keeps verifiers out of the server's log, as far as the administrator may.
{{else}}The administrator, who may call the functions and nothing else. Give it a
--    password afterwards:  \password {{.Admin}}
{{end}}DO $keyturn$
BEGIN
{{- if not .CreateRole}}
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Admin}}) THEN
    CREATE ROLE {{ident .Admin}} LOGIN;
  END IF;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), {{lit .Admin}});
{{- end}}
  -- Verifiers travel as parameters: keep parameters out of the server's log and statistics.
  BEGIN
    IF current_setting('server_version_num')::int >= 130000 THEN
      ALTER ROLE {{ident .Admin}} SET log_parameter_max_length = 0;
    END IF;
    ALTER ROLE {{ident .Admin}} SET auto_explain.log_min_duration = -1;
    ALTER ROLE {{ident .Admin}} SET pg_stat_statements.track = 'none';
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'the log of {{.Admin}} cannot be kept free of parameters here: with log_statement = all the server logs SCRAM verifiers';
  END;
  IF current_setting('server_version_num')::int >= 150000 THEN
    BEGIN
      EXECUTE 'GRANT SET ON PARAMETER {{.Silenced}} TO ' || {{lit (ident .Admin)}};
    EXCEPTION WHEN insufficient_privilege THEN
      NULL; -- managed services; log_parameter_max_length is enough
    END;
  END IF;
END $keyturn$;

-- 4. The role, and the logins that take turns: members of it, who act as it.
--    A login that services use today stays as it is and becomes the role.
DO $keyturn$
DECLARE
  _login text; _managed text[]; r record;
  _member text := CASE WHEN current_setting('server_version_num')::int >= 160000
                       THEN 'GRANT %I TO %I WITH INHERIT TRUE, SET TRUE' ELSE 'GRANT %I TO %I' END;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{lit .Role}}) THEN
    CREATE ROLE {{ident .Role}} NOLOGIN; -- grant it what the application needs
  END IF;
  IF to_regclass({{lit .Managed}}) IS NOT NULL THEN
    SELECT array_agg(m.login) INTO _managed FROM {{ident .Schema}}.managed m WHERE m.role = {{lit .Role}};
    FOR r IN SELECT m.login, m.role FROM {{ident .Schema}}.managed m WHERE m.role <> {{lit .Role}} LOOP
      IF r.login = {{lit .Role}} THEN
        RAISE EXCEPTION 'role {{.Role}} is a login of role %: a role whose logins take turns takes no turn itself', r.role;
      ELSIF r.login = ANY ({{array .Logins}}) THEN
        RAISE EXCEPTION 'login % belongs to role %: choose other names by logins', r.login, r.role;
      END IF;
    END LOOP;
  END IF;
{{- if .Single}}
  FOR r IN SELECT m.login FROM unnest(_managed) m (login) JOIN pg_roles p ON p.rolname = m.login WHERE m.login <> {{lit .Role}} AND p.rolcanlogin LOOP
    RAISE EXCEPTION 'login % takes turns for {{.Role}} and is armed: the strategy cannot become single-role under it', r.login;
  END LOOP;
{{- end}}
  FOREACH _login IN ARRAY {{array .Logins}} LOOP
    SELECT p.*, coalesce(shobj_description(p.oid, 'pg_authid'), '') AS comment INTO r FROM pg_roles p WHERE p.rolname = _login;
    IF NOT FOUND THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN INHERIT PASSWORD NULL VALID UNTIL %L', _login, '-infinity');
    ELSIF r.rolsuper OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls THEN
      RAISE EXCEPTION 'login % exists and has more rights than a login of Keyturn may have', _login;
    ELSIF (_login = ANY (_managed)) IS NOT TRUE THEN -- somebody made it: is it theirs?
      IF EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid AND (coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true)
                   OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)))
         OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname <> {{lit .Role}})
         OR EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid
                   AND d.classid <> 'pg_auth_members'::regclass) THEN
        RAISE EXCEPTION 'login % exists and is somebody''s: it has members, other memberships, objects or rights of its own; choose other names by logins', _login;
      ELSIF r.rolcanlogin AND NOT (r.comment LIKE 'keyturn:{%' AND coalesce({{lit .SetRole}} = ANY (r.rolconfig), false)) THEN
        RAISE EXCEPTION 'login % exists, may log in, and was not armed by Keyturn: choose other names by logins', _login;
      END IF;
    END IF;
    EXECUTE format(_member, {{lit .Role}}, _login);
  END LOOP;
END $keyturn$;

--    Settings and limits: those of the role, per database too, and SET role.
DO $keyturn$
DECLARE
  _login text; _role oid; _cmd text; _target text; r record;
BEGIN
  SELECT oid INTO _role FROM pg_roles WHERE rolname = {{lit .Role}};
  FOREACH _login IN ARRAY {{array .Logins}} LOOP
    EXECUTE format('ALTER ROLE %I CONNECTION LIMIT %s', _login, (SELECT rolconnlimit FROM pg_roles WHERE oid = _role));
    FOR r IN SELECT d.datname FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
             WHERE s.setrole = (SELECT oid FROM pg_roles WHERE rolname = _login) LOOP
      EXECUTE format('ALTER ROLE %I %s RESET ALL', _login, coalesce('IN DATABASE ' || quote_ident(r.datname), ''));
    END LOOP;
    FOR r IN SELECT d.datname, split_part(c, '=', 1) AS key, substr(c, strpos(c, '=') + 1) AS value
             FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
             WHERE s.setrole = _role AND split_part(c, '=', 1) NOT IN ('role', 'session_authorization') LOOP
      _target := format('ALTER ROLE %I %s SET ', _login, coalesce('IN DATABASE ' || quote_ident(r.datname), ''))
        || (SELECT string_agg(quote_ident(part), '.' ORDER BY n) FROM unnest(string_to_array(r.key, '.')) WITH ORDINALITY AS p(part, n));
      IF r.key IN ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') THEN
        -- Lists: taken over as they are, never put into the text of a statement.
        _cmd := _target || ' FROM CURRENT';
        PERFORM set_config(r.key, r.value, true);
        EXECUTE _cmd;
        SET LOCAL search_path = pg_catalog, pg_temp;
      ELSE
        EXECUTE _target || ' = ' || quote_literal(r.value);
      END IF;
    END LOOP;
    EXECUTE format('ALTER ROLE %I SET role = %L', _login, {{lit .Role}});
  END LOOP;
END $keyturn$;

-- 5. Which logins the functions may touch.{{if .Single}} The role is the one login, whose
--    password is changed.{{else}} A role that may log in itself is the
--    adopted one: it may be ended, and is never armed.{{end}}
CREATE SCHEMA IF NOT EXISTS {{ident .Schema}} AUTHORIZATION {{ident .Owner}};
REVOKE ALL ON SCHEMA {{ident .Schema}} FROM PUBLIC;
CREATE TABLE IF NOT EXISTS {{ident .Schema}}.managed (login text PRIMARY KEY, role text NOT NULL);
ALTER TABLE {{ident .Schema}}.managed OWNER TO {{ident .Owner}};
--    The version that holds the login: it alone may be ended or given a time.
ALTER TABLE {{ident .Schema}}.managed ADD COLUMN IF NOT EXISTS credential text,
  ADD COLUMN IF NOT EXISTS version int, ADD COLUMN IF NOT EXISTS ended boolean NOT NULL DEFAULT false,
  ADD COLUMN IF NOT EXISTS single boolean NOT NULL DEFAULT false;
REVOKE ALL ON {{ident .Schema}}.managed FROM PUBLIC;
--    Of a single login: the verifiers of its versions, and which was the login's from when on.
CREATE TABLE IF NOT EXISTS {{ident .Schema}}.held (login text NOT NULL, credential text NOT NULL, version int NOT NULL, verifier text,
  active boolean NOT NULL DEFAULT false, ended boolean NOT NULL DEFAULT false, PRIMARY KEY (login, credential, version));
CREATE TABLE IF NOT EXISTS {{ident .Schema}}.turns (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, login text NOT NULL,
  credential text NOT NULL, version int NOT NULL, began timestamptz NOT NULL, since timestamptz);
ALTER TABLE {{ident .Schema}}.held OWNER TO {{ident .Owner}};
ALTER TABLE {{ident .Schema}}.turns OWNER TO {{ident .Owner}};
REVOKE ALL ON {{ident .Schema}}.held, {{ident .Schema}}.turns FROM PUBLIC;
INSERT INTO {{ident .Schema}}.managed (login, role)
  SELECT l, {{lit .Role}} FROM unnest({{array .Logins}}) l
  UNION ALL SELECT rolname, rolname FROM pg_roles WHERE rolname = {{lit .Role}}{{if not .Single}} AND rolcanlogin{{end}}
  ON CONFLICT (login) DO UPDATE SET role = excluded.role;
DO $keyturn$
BEGIN
{{- if .Single}}
  IF EXISTS (SELECT FROM {{ident .Schema}}.managed m WHERE m.login = {{lit .Role}} AND m.ended) THEN
    RAISE EXCEPTION 'login {{.Role}} was retired when logins began to take turns for it: the strategy stays alternating';
  END IF;
  UPDATE {{ident .Schema}}.managed m SET single = true WHERE m.login = {{lit .Role}};
{{- else}}
  IF EXISTS (SELECT FROM {{ident .Schema}}.held h WHERE h.login = {{lit .Role}} AND NOT h.active AND NOT h.ended) THEN
    RAISE EXCEPTION 'a rotation of {{.Role}} is not at its end: bring it there before the strategy changes';
  END IF;
  UPDATE {{ident .Schema}}.managed m SET single = false WHERE m.login = {{lit .Role}};
  UPDATE {{ident .Schema}}.held h SET active = false, ended = true, verifier = NULL WHERE h.login = {{lit .Role}};
{{- end}}
END $keyturn$;
DO $keyturn$
DECLARE _login text; r record; _held jsonb;
BEGIN
  -- Where the table does not say who holds a login, its comment does: functions
  -- of version 1 kept it there alone, and so does the table of another database.
  FOR r IN SELECT m.login, o.rolcanlogin, substring(shobj_description(o.oid, 'pg_authid') FROM '^keyturn:([{].*)') AS comment
           FROM {{ident .Schema}}.managed m JOIN pg_roles o ON o.rolname = m.login
           WHERE m.role = {{lit .Role}} AND m.login <> m.role AND m.credential IS NULL LOOP
    BEGIN
      _held := r.comment::jsonb;
      UPDATE {{ident .Schema}}.managed m SET credential = _held ->> 'credential', version = (_held ->> 'version')::int, ended = _held ? 'ended'
        WHERE m.login = r.login AND _held ->> 'credential' IS NOT NULL AND (_held ->> 'version')::int IS NOT NULL;
    EXCEPTION WHEN data_exception THEN
      NULL; -- somebody else's words: nobody holds the login
    END;
    IF r.rolcanlogin AND EXISTS (SELECT FROM {{ident .Schema}}.managed m WHERE m.login = r.login AND m.credential IS NULL) THEN
      RAISE EXCEPTION 'login % may log in, and nobody knows for which version: disarm it, or write credential and version into {{.Schema}}.managed', r.login;
    END IF;
  END LOOP;
  IF current_setting('server_version_num')::int >= 160000 AND {{not .CreateRole}} THEN
    FOR _login IN SELECT m.login FROM {{ident .Schema}}.managed m WHERE m.role = {{lit .Role}} LOOP
      EXECUTE format('GRANT %I TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', _login, {{lit .Owner}});
    END LOOP;
  END IF;
END $keyturn$;

{{template "functions.sql" .}}
DO $keyturn$
DECLARE f regprocedure;
BEGIN
  FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = {{lit .Schema}}) LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO %I', f, {{lit .Owner}});
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f, {{lit .Admin}});
  END LOOP;
END $keyturn$;
GRANT USAGE ON SCHEMA {{ident .Schema}} TO {{ident .Admin}};

{{if not .CreateRole}}-- 7. A managed service's administrator leaves the owner again.
DO $keyturn$
BEGIN
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE format('REVOKE %I FROM %I', {{lit .Owner}}, current_user);
  END IF;
END $keyturn$;
{{end -}}
COMMIT;

-- Lines of pg_hba.conf that name {{.Role}} must name its logins too, or +{{.Role}}
-- (every member of it); the administrator needs a line of its own, for instance
--   hostssl {{.Database}} {{.Admin}} samehost scram-sha-256
