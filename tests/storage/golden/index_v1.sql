-- An index of schema version 1, the first released one, with a row in every table. Written once; never changed.
BEGIN;
CREATE TABLE jobs(
  number INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  user TEXT NOT NULL,
  state TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  finished_ms INTEGER NOT NULL,
  recipe_text TEXT NOT NULL,
  recipe_digest BLOB CHECK(length(recipe_digest) = 32),
  resolved TEXT NOT NULL,
  message TEXT NOT NULL,
  priority INTEGER NOT NULL
) STRICT;

CREATE TABLE steps(
  key BLOB PRIMARY KEY NOT NULL CHECK(length(key) = 32),
  kind TEXT NOT NULL,
  spec TEXT NOT NULL,
  state TEXT NOT NULL,
  attempts INTEGER NOT NULL CHECK(attempts >= 0),
  artifact BLOB REFERENCES artifacts(digest) DEFERRABLE INITIALLY DEFERRED,
  error_class TEXT NOT NULL,
  message TEXT NOT NULL
) STRICT;

CREATE TABLE job_steps(
  job TEXT NOT NULL REFERENCES jobs(id) DEFERRABLE INITIALLY DEFERRED,
  name TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  variant TEXT NOT NULL,
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  reused INTEGER NOT NULL CHECK(reused IN (0, 1)),
  wanted INTEGER NOT NULL CHECK(wanted IN (0, 1)),
  PRIMARY KEY(job, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts(
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  epoch INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  worker TEXT NOT NULL,
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER NOT NULL,
  busy_ms INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  error_class TEXT NOT NULL,
  message TEXT NOT NULL,
  PRIMARY KEY(key, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE metrics(
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  lease_epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  metric_values TEXT NOT NULL,
  PRIMARY KEY(key, lease_epoch, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshots(
  key BLOB PRIMARY KEY NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  blob BLOB CHECK(length(blob) = 32),
  at_ms INTEGER NOT NULL,
  position TEXT NOT NULL,
  lease_epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts(
  digest BLOB PRIMARY KEY NOT NULL CHECK(length(digest) = 32),
  key BLOB NOT NULL REFERENCES steps(key) DEFERRABLE INITIALLY DEFERRED,
  manifest TEXT NOT NULL,
  bytes INTEGER NOT NULL CHECK(bytes >= 0),
  created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE versions(
  model TEXT NOT NULL,
  version INTEGER NOT NULL CHECK(version > 0),
  artifact BLOB NOT NULL REFERENCES artifacts(digest) DEFERRABLE INITIALLY DEFERRED,
  job TEXT NOT NULL,
  step TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  evidence TEXT NOT NULL,
  PRIMARY KEY(model, version)
) STRICT;

CREATE TABLE aliases(
  model TEXT NOT NULL,
  alias TEXT NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY(model, alias),
  FOREIGN KEY(model, version) REFERENCES versions(model, version) DEFERRABLE INITIALLY DEFERRED
) STRICT, WITHOUT ROWID;

CREATE TABLE events(
  job TEXT NOT NULL REFERENCES jobs(id) DEFERRABLE INITIALLY DEFERRED,
  sequence INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  level TEXT NOT NULL,
  step TEXT NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY(job, sequence)
) STRICT, WITHOUT ROWID;
INSERT INTO jobs VALUES(1,'j000000001','lenet','ada','done',1700000000123,1700000009999,'name: lenet
',X'e1d8e552330911f9f779f85b6f2c00a15e790dcc3fbb3b28f5da1d660a30c5b8','{"name":"lenet","tree":{"seed":1}}','',0);
INSERT INTO steps VALUES(X'a96868f22300a7b1231616a14f8927c7f35899010c29bb0374eb555478cd748f','train','{"kind":"train","params":{"epochs":3}}','done',0,X'e691d5983c7224e8647fc9a27b5f7bd7990eb821e1ff1aebc9b5936a0f3ca29a','','');
INSERT INTO job_steps VALUES('j000000001','baseline',0,'',X'a96868f22300a7b1231616a14f8927c7f35899010c29bb0374eb555478cd748f',0,1);
INSERT INTO attempts VALUES(X'a96868f22300a7b1231616a14f8927c7f35899010c29bb0374eb555478cd748f',41,1,'host-7-1',10,20,9,'done','','');
INSERT INTO metrics VALUES(X'a96868f22300a7b1231616a14f8927c7f35899010c29bb0374eb555478cd748f',41,1,12,'{"epoch":0.5,"loss":2.25}');
INSERT INTO snapshots VALUES(X'a96868f22300a7b1231616a14f8927c7f35899010c29bb0374eb555478cd748f',NULL,15,'null',0,0);
INSERT INTO artifacts VALUES(X'e691d5983c7224e8647fc9a27b5f7bd7990eb821e1ff1aebc9b5936a0f3ca29a',X'a96868f22300a7b1231616a14f8927c7f35899010c29bb0374eb555478cd748f','{"blobs":{"checkpoint":{"bytes":21,"digest":"3810143f2162ce9e667871f31a2d8bbe626059f51e4504ea64deaea8c47323b3"}},"format":1,"kind":"checkpoint","results":{"parameters":7},"step":"a96868f22300a7b1231616a14f8927c7f35899010c29bb0374eb555478cd748f"}',21,1700000009998);
INSERT INTO versions VALUES('lenet',1,X'e691d5983c7224e8647fc9a27b5f7bd7990eb821e1ff1aebc9b5936a0f3ca29a','j000000001','baseline',30,'{"reason":"smallest"}');
INSERT INTO aliases VALUES('lenet','champion',1);
INSERT INTO events VALUES('j000000001',1,11,'info','baseline','granted');
PRAGMA application_id=1346458181;
PRAGMA user_version=1;
COMMIT;
