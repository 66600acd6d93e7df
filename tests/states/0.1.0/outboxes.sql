-- allocator-combinators-old
BEGIN TRANSACTION;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL, topic TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time TEXT NOT NULL, body BLOB NOT NULL
);
INSERT INTO "events" VALUES(6,'6b0861710c90d627c4ac12a5-1-1/answer','patchbay/allocator/combinator-1/event/finished','patchbay.allocator.finished','combinator-1','2026-11-26T16:43:35.292Z',CAST('{"combinator":1,"job":"6b0861710c90d627c4ac12a5","command":"6b0861710c90d627c4ac12a5-1-1","status":"done","device":1}' AS BLOB));
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL, base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL
);
INSERT INTO "meta" VALUES(1,'ab2259d0774d495b894347b22552a759',0,6,0);
CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "notes" VALUES('combinator/1',CAST('{"rev":1795711345156,"command":"","job":"","code":"","lost_at":null,"finished":["6b0861710c90d627c4ac12a5-1-1"]}' AS BLOB));
INSERT INTO "notes" VALUES('combinator/2',CAST('{"rev":1795711345164,"command":"","job":"","code":"","lost_at":null,"finished":["6b0861710c911e27c4ac12a5-1-2","6b0861710c918b27c4ac12a5-1-2","6b0861710c919b27c4ac12a5-1-2","6b0861710c919b27c4ac12a5-3-2","6b0861710c919b27c4ac12a5-5-2"]}' AS BLOB));
COMMIT;
-- allocator-intake-old
BEGIN TRANSACTION;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL, topic TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time TEXT NOT NULL, body BLOB NOT NULL
);
INSERT INTO "events" VALUES(9,'6b0861b704bdbb27c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:35.310Z',CAST('{"ClientName":"late","CustomerName":"late-1-0","ColorCode":"000000"}' AS BLOB));
INSERT INTO "events" VALUES(10,'6b0861b704bdfe27c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:35.310Z',CAST('{"ClientName":"late","CustomerName":"late-1-1","ColorCode":"000001"}' AS BLOB));
INSERT INTO "events" VALUES(11,'6b0861b704be0b27c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:35.310Z',CAST('{"ClientName":"late","CustomerName":"late-1-2","ColorCode":"000002"}' AS BLOB));
INSERT INTO "events" VALUES(12,'6b0861b704be1527c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:35.310Z',CAST('{"ClientName":"late","CustomerName":"late-1-3","ColorCode":"000003"}' AS BLOB));
INSERT INTO "events" VALUES(13,'6b0861b704be1e27c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:35.310Z',CAST('{"ClientName":"late","CustomerName":"late-1-4","ColorCode":"000004"}' AS BLOB));
INSERT INTO "events" VALUES(14,'6b0861be09a3c927c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:42.631Z',CAST('{"ClientName":"late","CustomerName":"late-2-0","ColorCode":"000000"}' AS BLOB));
INSERT INTO "events" VALUES(15,'6b0861be09a40427c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:42.631Z',CAST('{"ClientName":"late","CustomerName":"late-2-1","ColorCode":"000001"}' AS BLOB));
INSERT INTO "events" VALUES(16,'6b0861be09a41027c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:42.631Z',CAST('{"ClientName":"late","CustomerName":"late-2-2","ColorCode":"000002"}' AS BLOB));
INSERT INTO "events" VALUES(17,'6b0861be09a41827c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:42.631Z',CAST('{"ClientName":"late","CustomerName":"late-2-3","ColorCode":"000003"}' AS BLOB));
INSERT INTO "events" VALUES(18,'6b0861be09a42127c4ac12a5','patchbay/allocator/late/event/requested','patchbay.allocator.requested','late','2026-11-26T16:43:42.631Z',CAST('{"ClientName":"late","CustomerName":"late-2-4","ColorCode":"000004"}' AS BLOB));
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL, base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL
);
INSERT INTO "meta" VALUES(1,'7a5d630ce6a2456c9cf4ef9bd96aa2fb',0,18,0);
CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
COMMIT;
-- bartender-pumps-old
BEGIN TRANSACTION;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL, topic TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time TEXT NOT NULL, body BLOB NOT NULL
);
INSERT INTO "events" VALUES(8,'bar:1795711414238-d18c7a67/finished','patchbay/bartender/bar-pumps/event/finished','patchbay.bartender.finished','bar-pumps','2026-11-26T16:43:40.250Z',CAST('{"run_id":"bar:1795711414238-d18c7a67","result":"done","reason":"","ran":{"7":6.0012}}' AS BLOB));
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL, base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL
);
INSERT INTO "meta" VALUES(1,'aecb022b9b7b4c72a0c652c719ff5d7e',0,8,7);
CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "notes" VALUES('run/bar:1795711346332-416f7316',CAST('1' AS BLOB));
INSERT INTO "notes" VALUES('run/bar:1795711346795-d41b82b5',CAST('2' AS BLOB));
INSERT INTO "notes" VALUES('run/bar:1795711349810-37de7260',CAST('3' AS BLOB));
INSERT INTO "notes" VALUES('run/bar:1795711414238-d18c7a67',CAST('4' AS BLOB));
COMMIT;
-- locker-edge-old
BEGIN TRANSACTION;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL, topic TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time TEXT NOT NULL, body BLOB NOT NULL
);
INSERT INTO "events" VALUES(18,'b-1:1795711345:0000000006','patchbay/locker/b-1/event/report','patchbay.locker.report','b-1','2026-11-26T16:43:35.291Z',CAST('{"board":"b-1","boot":1795711345,"send":6,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[2],"box_acc":[1],"rev":5,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(19,'b-2:1795711345:0000000005','patchbay/locker/b-2/event/report','patchbay.locker.report','b-2','2026-11-26T16:43:35.294Z',CAST('{"board":"b-2","boot":1795711345,"send":5,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[3],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[],"box_acc":[],"rev":3,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(20,'b-3:1795711345:0000000003','patchbay/locker/b-3/event/report','patchbay.locker.report','b-3','2026-11-26T16:43:35.295Z',CAST('{"board":"b-3","boot":1795711345,"send":3,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[],"box_to":[],"box_acc":[],"rev":1,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(21,'b-4:1795711345:0000000003','patchbay/locker/b-4/event/report','patchbay.locker.report','b-4','2026-11-26T16:43:35.297Z',CAST('{"board":"b-4","boot":1795711345,"send":3,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[],"box_to":[],"box_acc":[],"rev":0,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(22,'haus_7__-53e72cde:1795711345:0000000005','patchbay/locker/haus_7__-53e72cde/event/report','patchbay.locker.report','Haus 7/ä','2026-11-26T16:43:35.300Z',CAST('{"board":"Haus 7/ä","boot":1795711345,"send":5,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[9],"box_to":[],"box_acc":[9],"rev":1,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(23,'b-1:1795711345:0000000007','patchbay/locker/b-1/event/report','patchbay.locker.report','b-1','2026-11-26T16:43:35.302Z',CAST('{"board":"b-1","boot":1795711345,"send":7,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[],"box_acc":[],"rev":5,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(24,'b-2:1795711345:0000000006','patchbay/locker/b-2/event/report','patchbay.locker.report','b-2','2026-11-26T16:43:35.305Z',CAST('{"board":"b-2","boot":1795711345,"send":6,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[3],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[],"box_acc":[],"rev":3,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(25,'b-3:1795711415:0000000001','patchbay/locker/b-3/event/report','patchbay.locker.report','b-3','2026-11-26T16:43:35.308Z',CAST('{"board":"b-3","boot":1795711415,"send":1,"rebooted":true,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":true,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[],"box_to":[],"box_acc":[],"rev":1,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(26,'b-1:1795711345:0000000008','patchbay/locker/b-1/event/report','patchbay.locker.report','b-1','2026-11-26T16:43:42.587Z',CAST('{"board":"b-1","boot":1795711345,"send":8,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[],"box_acc":[1],"rev":5,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(27,'b-2:1795711345:0000000007','patchbay/locker/b-2/event/report','patchbay.locker.report','b-2','2026-11-26T16:43:42.594Z',CAST('{"board":"b-2","boot":1795711345,"send":7,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[3],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[],"box_acc":[],"rev":3,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(28,'b-3:1795711415:0000000002','patchbay/locker/b-3/event/report','patchbay.locker.report','b-3','2026-11-26T16:43:42.597Z',CAST('{"board":"b-3","boot":1795711415,"send":2,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[],"box_to":[],"box_acc":[],"rev":1,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(29,'b-4:1795711345:0000000004','patchbay/locker/b-4/event/report','patchbay.locker.report','b-4','2026-11-26T16:43:42.601Z',CAST('{"board":"b-4","boot":1795711345,"send":4,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[],"box_to":[],"box_acc":[],"rev":0,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(30,'haus_7__-53e72cde:1795711345:0000000006','patchbay/locker/haus_7__-53e72cde/event/report','patchbay.locker.report','Haus 7/ä','2026-11-26T16:43:42.609Z',CAST('{"board":"Haus 7/ä","boot":1795711345,"send":6,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[9],"box_to":[],"box_acc":[9],"rev":1,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(31,'b-1:1795711345:0000000009','patchbay/locker/b-1/event/report','patchbay.locker.report','b-1','2026-11-26T16:43:42.617Z',CAST('{"board":"b-1","boot":1795711345,"send":9,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[],"box_acc":[],"rev":5,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(32,'b-2:1795711345:0000000008','patchbay/locker/b-2/event/report','patchbay.locker.report','b-2','2026-11-26T16:43:42.621Z',CAST('{"board":"b-2","boot":1795711345,"send":8,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[3],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[1],"box_to":[],"box_acc":[],"rev":3,"extra":{}}' AS BLOB));
INSERT INTO "events" VALUES(33,'b-3:1795711415:0000000003','patchbay/locker/b-3/event/report','patchbay.locker.report','b-3','2026-11-26T16:43:42.625Z',CAST('{"board":"b-3","boot":1795711415,"send":3,"rebooted":false,"late":false,"maybe_repeat":false,"connection":1,"wifi_state":0,"gsm_state":0,"reset":false,"state":[0],"cols":8,"rows":8,"act_con":["11111111","11111111","11111111","11111111","11111111","11111111","11111111","11111111"],"box_eng":[],"box_to":[],"box_acc":[],"rev":1,"extra":{}}' AS BLOB));
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL, base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL
);
INSERT INTO "meta" VALUES(1,'5d784e523ff94a7891da8ae3eb490ea8',0,33,17);
CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "notes" VALUES('desired/b-1',CAST('{"rev":5,"board":"b-1","reset_id":null,"blocked":false,"rentals":[{"cell":1,"code":"1111","expires_at":"2026-11-27T02:42:25.748Z"}]}' AS BLOB));
INSERT INTO "notes" VALUES('desired/b-2',CAST('{"rev":3,"board":"b-2","reset_id":null,"blocked":true,"rentals":[{"cell":1,"code":"1451","expires_at":"2026-11-27T08:12:25.770Z"}]}' AS BLOB));
INSERT INTO "notes" VALUES('desired/b-3',CAST('{"rev":1,"board":"b-3","reset_id":1,"blocked":false,"rentals":[]}' AS BLOB));
INSERT INTO "notes" VALUES('desired/b-4',CAST('{"rev":0,"board":"b-4","reset_id":null,"blocked":false,"rentals":[]}' AS BLOB));
INSERT INTO "notes" VALUES('desired/haus_7__-53e72cde',CAST('{"rev":1,"board":"Haus 7/ä","reset_id":null,"blocked":false,"rentals":[{"cell":9,"code":"0909","expires_at":"2026-11-30T04:02:25.789Z"}]}' AS BLOB));
INSERT INTO "notes" VALUES('last/b-1',X'7161086B000000000900000000000000000000000000000000080000D299340F4FA5A92A');
INSERT INTO "notes" VALUES('last/b-2',X'7161086B0000000008000000000000000000000000000000000800009EB2DDDBA90B23A2');
INSERT INTO "notes" VALUES('last/b-3',X'B761086B000000000300000000000000000000000000000000080000A0622FB59EFCF830');
INSERT INTO "notes" VALUES('last/b-4',X'7161086B00000000040000000000000000000000000000000008000075D3E363F262647E');
INSERT INTO "notes" VALUES('last/haus_7__-53e72cde',X'7161086B000000000600000000000000000000000000000000080100BB0B3CED1A9D965F0900');
INSERT INTO "notes" VALUES('reset/b-3',CAST('1' AS BLOB));
COMMIT;
-- mesh-uart-old
BEGIN TRANSACTION;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL, topic TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
    time TEXT NOT NULL, body BLOB NOT NULL
);
INSERT INTO "events" VALUES(16,'6b7cc9b0ec964ed8901e402548ba5844/000000000016','patchbay/mesh/node-5/event/data','patchbay.mesh.data','node-5','2026-11-26T16:43:35.311Z',X'82A46E6F646505A676616C7565739182A474797065A3434E54A464617461C4020064');
INSERT INTO "events" VALUES(17,'6b7cc9b0ec964ed8901e402548ba5844/000000000017','patchbay/mesh/node-6/event/data','patchbay.mesh.data','node-6','2026-11-26T16:43:35.311Z',X'82A46E6F646506A676616C7565739182A474797065A3475053A464617461C40602F001BE9200');
INSERT INTO "events" VALUES(18,'6b7cc9b0ec964ed8901e402548ba5844/000000000018','patchbay/mesh/node-5/event/data','patchbay.mesh.data','node-5','2026-11-26T16:43:35.361Z',X'82A46E6F646505A676616C7565739182A474797065A3434E54A464617461C4020065');
INSERT INTO "events" VALUES(19,'6b7cc9b0ec964ed8901e402548ba5844/000000000019','patchbay/mesh/node-6/event/data','patchbay.mesh.data','node-6','2026-11-26T16:43:35.361Z',X'82A46E6F646506A676616C7565739182A474797065A3475053A464617461C40602F001BE9200');
INSERT INTO "events" VALUES(20,'6b7cc9b0ec964ed8901e402548ba5844/000000000020','patchbay/mesh/node-5/event/data','patchbay.mesh.data','node-5','2026-11-26T16:43:35.412Z',X'82A46E6F646505A676616C7565739182A474797065A3434E54A464617461C4020066');
INSERT INTO "events" VALUES(21,'6b7cc9b0ec964ed8901e402548ba5844/000000000021','patchbay/mesh/node-6/event/data','patchbay.mesh.data','node-6','2026-11-26T16:43:35.412Z',X'82A46E6F646506A676616C7565739182A474797065A3475053A464617461C40602F001BE9200');
INSERT INTO "events" VALUES(22,'6b7cc9b0ec964ed8901e402548ba5844/000000000022','patchbay/mesh/node-7/event/message','patchbay.mesh.message','node-7','2026-11-26T16:43:35.463Z',X'83A46E6F646507A474797065A35B4D5DA77061796C6F6164C407066C6174652031');
INSERT INTO "events" VALUES(23,'6b7cc9b0ec964ed8901e402548ba5844/000000000023','patchbay/mesh/node-8/event/data','patchbay.mesh.data','node-8','2026-11-26T16:43:35.463Z',X'82A46E6F646508A676616C7565739182A474797065A34E4557A464617461C40131');
INSERT INTO "events" VALUES(24,'6b7cc9b0ec964ed8901e402548ba5844/000000000024','patchbay/mesh/node-5/event/data','patchbay.mesh.data','node-5','2026-11-26T16:43:42.631Z',X'82A46E6F646505A676616C7565739182A474797065A3434E54A464617461C40200C8');
INSERT INTO "events" VALUES(25,'6b7cc9b0ec964ed8901e402548ba5844/000000000025','patchbay/mesh/node-6/event/data','patchbay.mesh.data','node-6','2026-11-26T16:43:42.632Z',X'82A46E6F646506A676616C7565739182A474797065A3475053A464617461C40602F001BE9200');
INSERT INTO "events" VALUES(26,'6b7cc9b0ec964ed8901e402548ba5844/000000000026','patchbay/mesh/node-5/event/data','patchbay.mesh.data','node-5','2026-11-26T16:43:42.685Z',X'82A46E6F646505A676616C7565739182A474797065A3434E54A464617461C40200C9');
INSERT INTO "events" VALUES(27,'6b7cc9b0ec964ed8901e402548ba5844/000000000027','patchbay/mesh/node-6/event/data','patchbay.mesh.data','node-6','2026-11-26T16:43:42.685Z',X'82A46E6F646506A676616C7565739182A474797065A3475053A464617461C40602F001BE9200');
INSERT INTO "events" VALUES(28,'6b7cc9b0ec964ed8901e402548ba5844/000000000028','patchbay/mesh/node-5/event/data','patchbay.mesh.data','node-5','2026-11-26T16:43:42.737Z',X'82A46E6F646505A676616C7565739182A474797065A3434E54A464617461C40200CA');
INSERT INTO "events" VALUES(29,'6b7cc9b0ec964ed8901e402548ba5844/000000000029','patchbay/mesh/node-6/event/data','patchbay.mesh.data','node-6','2026-11-26T16:43:42.737Z',X'82A46E6F646506A676616C7565739182A474797065A3475053A464617461C40602F001BE9200');
INSERT INTO "events" VALUES(30,'6b7cc9b0ec964ed8901e402548ba5844/000000000030','patchbay/mesh/node-7/event/message','patchbay.mesh.message','node-7','2026-11-26T16:43:42.788Z',X'83A46E6F646507A474797065A35B4D5DA77061796C6F6164C407066C6174652032');
INSERT INTO "events" VALUES(31,'6b7cc9b0ec964ed8901e402548ba5844/000000000031','patchbay/mesh/node-8/event/data','patchbay.mesh.data','node-8','2026-11-26T16:43:42.788Z',X'82A46E6F646508A676616C7565739182A474797065A34E4557A464617461C40132');
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL, base INTEGER NOT NULL, seq INTEGER NOT NULL, acked INTEGER NOT NULL
);
INSERT INTO "meta" VALUES(1,'6b7cc9b0ec964ed8901e402548ba5844',0,31,15);
CREATE TABLE notes (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
COMMIT;
