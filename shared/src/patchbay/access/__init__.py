"""Who may do what: users, passwords, access rules and certificates, made once at set-up.

    rights        what each user may publish and read, from `Service.rights`
    acl           the same as mosquitto's access file
    passwords     a password, and mosquitto's hash of it
    users         all users made, and all files that follow from them
    store_users   the store's users, as a script
    directory     where all of it is kept, and who may read which file
    certificates  an authority and the broker's certificate
    bridge        the configuration of a mosquitto beside a unit that hands on what it says
    conf          mosquitto's configuration for all of it

A unit's user name is its instance id; a person has a name of their own. Nothing of this is imported
by a unit.
"""
