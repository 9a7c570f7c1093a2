"""``consulta evaluate``: measures search and answers on a set of questions."""
